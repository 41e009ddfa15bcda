"""Experts from data: members of the initial pool that are trained on a data set each, one LoRA adapter a member (C.3 of the paper)."""

from collections.abc import Sequence
from pathlib import Path

from sparta.engines.small_base import settled
from sparta.engines.token_count import CHARACTERS_A_TOKEN
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.pool.expert_data import rendered, seed_of_expert, sft_renderer, sft_rows_of_expert
from sparta.pool.knob_checks import check_task
from sparta.pool.members import base_folder, starting_adapter
from sparta.pool.training_layout import settled_sft
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.records import SftDataInfo, TrainedExpert
from sparta.store.run import Run
from sparta.training.factory import train_expert
from sparta.training.gpu_allocator import expandable_segments
from sparta.training.job import SftExample, SftJob
from sparta.training.loading import BaseInMemory


class TrainExperts(RowPhase):
    name = "sft"
    rows = TrainedExpert
    needs_plan = False
    trains = True

    @property
    def title(self) -> str:
        return "training experts"

    def gpus(self, recipe: Recipe) -> int:
        """One: TRL's loop holds the whole base."""
        return 1

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).training

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        bases, recipe = run.bases, run.recipe
        return [
            WorkItem(
                model.name,
                tokens_to_learn(recipe, model, run.sft_data[model.name]),
                group=model.name,
                base=bases[model.name],
            )
            for model in recipe.pool.experts
        ]

    def expected(self, run: Run, t: int) -> Expected:
        """If no row is dropped."""
        recipe = run.recipe
        experts = [(model, run.sft_data[model.name]) for model in recipe.pool.experts]
        return Expected(
            f"{len(experts)} of them trained from data, {sum(data.rows for _, data in experts):,} rows",
            bundles=len(experts),
            updates=sum(updates_of(recipe, model, data) for model, data in experts),
            seconds=tuple(
                tokens_to_learn(recipe, model, data) / recipe.cluster.assumed.learned_tokens_per_second
                for model, data in experts
            ),
        )

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        check_task(run.recipe, _device(run.recipe))
        experts = {model.name: model for model in run.recipe.pool.experts}
        # Experts of one base one after another: it is loaded once.
        with expandable_segments(), BaseInMemory() as base:
            for item in sorted(items, key=lambda item: item.base):
                sink.write(_trained_expert(run, t, experts[item.key], base, sink))


def _device(recipe: Recipe) -> str:
    """engine.device of the trainings."""
    return settled(recipe.engine, {base_folder(recipe, each) for each in recipe.pool.models}).device


def epochs_of(recipe: Recipe, model: Model) -> int:
    """How often `model` sees each of its rows."""
    assert model.sft is not None
    return model.sft.epochs or recipe.pool.sft.epochs


def tokens_to_learn(recipe: Recipe, model: Model, data: SftDataInfo) -> float:
    """Tokens that `model` is trained on, about: of all rows and epochs, prompts with them."""
    return epochs_of(recipe, model) * data.characters / CHARACTERS_A_TOKEN


def updates_of(recipe: Recipe, model: Model, data: SftDataInfo) -> int:
    """Weight updates that the training of `model` has, if no row of it is dropped."""
    step = recipe.pool.sft.batch_size * recipe.pool.sft.accumulation
    return -(-data.rows * epochs_of(recipe, model) // step)


def _trained_expert(run: Run, t: int, model: Model, loaded: BaseInMemory, sink: Sink) -> TrainedExpert:
    recipe, out = run.recipe, run.iteration(t).adapter(model.name)
    base, seed = base_folder(recipe, model), seed_of_expert(recipe, model.name)
    place = run.state.jobs / f"iter_{t:02d}" / "sft"
    start = place / f"start-{model.name}"
    for name, content in starting_adapter(recipe, model, seed).items():
        files.write_bytes(start / name, content)
    renderer = sft_renderer(recipe, base, run.chat)
    job = SftJob(
        model=model.name,
        base=base,
        adapter=start,
        examples=tuple(
            SftExample(*sequence)
            for chat in sft_rows_of_expert(run, model)
            for sequence in rendered(renderer, model, chat)
        ),
        out=out,
        work=place / f"checkpoints-{model.name}",
        # No row may be longer than the base can read.
        settings=recipe.pool.sft.model_copy(update={"max_length": renderer.context_length}),
        epochs=epochs_of(recipe, model),
        dtype=recipe.engine.dtype,
        device=_device(recipe),
        seed=seed,
        trust_remote_code=recipe.pool.trust_remote_code,
        quantize=recipe.engine.quantize,
        attention=recipe.engine.attention,
    )
    report = train_expert(
        settled_sft(recipe, job),
        recipe.engine.kind,
        lambda update, updates, loss: sink.advance(model.name, 0.99 * update / max(updates, 1)),
        loaded,
    )
    files.remove(start)
    return TrainedExpert(
        model=model.name,
        sha256=files.sha256_tree(out),
        rows=report.used,
        dropped=report.dropped,
        steps=report.steps,
        first_loss=report.first_loss,
        last_loss=report.last_loss,
        mean_loss=report.mean_loss,
        tokens=report.tokens,
        seconds=report.seconds,
    )
