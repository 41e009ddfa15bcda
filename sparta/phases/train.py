"""Train: every model learns from all of the iteration's preference pairs by DPO (Algorithm 1, lines 16 to 18)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sparta import rng
from sparta.chat.renderer import Renderer
from sparta.engines.base import Engine, ModelRef
from sparta.engines.factory import close_engine_on_gpu
from sparta.engines.small_base import settled
from sparta.engines.tokenizers import fingerprint, load_renderer
from sparta.errors import SpartaError
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.phases.merge import read_pairs
from sparta.pool.knob_checks import check_task
from sparta.pool.members import engine_for, references
from sparta.pool.training_layout import layout_of
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.records import Pair, Trained, TrainedExpert
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.training.factory import train
from sparta.training.gpu_allocator import expandable_segments
from sparta.training.job import PreferenceExample, Progress, RatedExample, TrainingJob, TrainingReport

_Row = TypeVar("_Row", TrainedExpert, Trained)
Learners = Callable[[Run, int], Sequence[str]]
"""Which members learn in an iteration: a method says."""


def everyone(run: Run, t: int) -> Sequence[str]:
    """All members learn."""
    return run.models


def trained(
    run: Run,
    t: int,
    names: Iterable[str],
    kind: type[_Row],
    digest: Callable[[Path], str] = files.sha256_tree,
) -> dict[str, _Row]:
    """The rows of iteration t's trainings of the models `names`. Raises SpartaError where one is missing, or its adapter is not what it made.

    digest: of an adapter's folder.
    """
    iteration = run.iteration(t)
    rows, names = read_shards(iteration.training, kind), tuple(names)
    for name in names:
        folder = iteration.adapter(name)
        if name not in rows or not folder.is_dir():
            raise SpartaError(
                f"{folder} is missing: training of {name} is not complete, launch the run again to continue it"
            )
        if digest(folder) != rows[name].sha256:
            raise SpartaError(
                f"{folder} is not what training of {name} made: remove the folder and its line in {iteration.training}, then launch the run "
                "again to train it anew"
            )
    return {name: rows[name] for name in names}


class Train(RowPhase):
    name = "train"
    rows = Trained
    needs_plan = False
    trains = True

    def __init__(
        self, learners: Learners = everyone, pairs_per_prompt: int = 1, square_loss: bool = False
    ) -> None:
        """pairs_per_prompt: the most preference pairs from one prompt (or combat). square_loss: SPPO's; the scores of a pair are its win rates."""
        self._learners, self._pairs_per_prompt, self.square_loss = learners, pairs_per_prompt, square_loss

    def gpus(self, recipe: Recipe) -> int:
        return recipe.cluster.gpus_per_training

    @property
    def gpus_key(self) -> str:
        return "cluster.gpus_per_training"

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).training

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        pairs = run.recipe.combats * self._pairs_per_prompt
        cost = pairs * run.recipe.generation.max_new_tokens * 2.0 * run.recipe.dpo.epochs
        bundles, bases = _bundles(run, self._learners(run, t)), run.bases
        return [
            WorkItem(model, cost, group=model, base=bases[model], bundle=bundle)
            for model, bundle in bundles.items()
        ]

    def expected(self, run: Run, t: int) -> Expected:
        recipe, learners = run.recipe, self._learners(run, t)
        count, pairs = len(learners), recipe.combats * self._pairs_per_prompt
        step = recipe.dpo.batch_size * recipe.dpo.accumulation
        return Expected(
            f"{count} training{'s' * (count != 1)} of up to {pairs:,} pairs",
            bundles=len(set(_bundles(run, learners).values())),
            updates=-(-pairs // step) * recipe.dpo.epochs * count,
            seconds=(pairs * recipe.dpo.epochs / recipe.cluster.assumed.pairs_per_second,) * count,
        )

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        """Members of one base together, as many as `cluster.train_together` and the memory say; one base after another."""
        recipe, pairs = run.recipe, read_pairs(run, t)
        members = references(run, t - 1)
        engine = engine_for(run, self.engine(recipe), members.values())
        device = settled(recipe.engine, [model.base for model in members.values()]).device
        check_task(recipe, device)
        jobs = defaultdict[str, list[TrainingJob]](list)
        # Members of one base read pairs alike.
        examples: dict[str, tuple[PreferenceExample, ...]] = {}
        for item in items:
            model = members[item.key]
            if model.base not in examples:
                reading = _tokenizer(engine, model, run)
                examples[model.base] = tuple(example_of(pair, *reading) for pair in pairs)
            job = _job(run, t, model, examples[model.base], device)
            jobs[model.base].append(_with_square_loss(job, pairs, recipe) if self.square_loss else job)
        close_engine_on_gpu()
        with expandable_segments():
            for base, of_base in jobs.items():
                layout = layout_of(recipe, base, of_base)
                settled_jobs = layout.applied(of_base)
                train(
                    settled_jobs,
                    recipe.engine.kind,
                    layout.members,
                    _progress_to(sink),
                    _rows_to(sink),
                    layout.ranks,
                )


def _bundles(run: Run, learners: Sequence[str]) -> dict[str, str]:
    """Which bundle each of `learners` is of: those that the recipe wants trained together, else every one of its own."""
    asked = run.recipe.cluster.train_together
    if asked == "auto":
        return {model: model for model in learners}
    bases, seen = run.bases, defaultdict[str, int](int)
    found = {}
    for model in learners:
        found[model] = f"{bases[model]} {seen[bases[model]] // asked}"
        seen[bases[model]] += 1
    return found


def _job(
    run: Run, t: int, model: ModelRef, examples: tuple[PreferenceExample, ...], device: str
) -> TrainingJob:
    recipe = run.recipe
    assert model.adapter is not None, "every member has an adapter"
    return TrainingJob(
        model=model.name,
        base=model.base,
        adapter=model.adapter,
        examples=examples,
        out=run.iteration(t).adapter(model.name),
        work=run.state.jobs / f"iter_{t:02d}" / "train" / f"checkpoints-{model.name}",
        settings=recipe.dpo,
        dtype=recipe.engine.dtype,
        device=device,
        seed=rng.seed_of(recipe.seed, t, "train", model.name) % 2**31,
        trust_remote_code=recipe.pool.trust_remote_code,
        quantize=recipe.engine.quantize,
        attention=recipe.engine.attention,
        threads=recipe.engine.threads,
    )


def _with_square_loss(job: TrainingJob, pairs: Sequence[Pair], recipe: Recipe) -> TrainingJob:
    """`job`, trained by the square loss, with the win rates of `pairs`, which its examples are made of."""
    rated = (
        RatedExample(example.prompt_ids, example.chosen_ids, example.rejected_ids, pair.scores)
        for example, pair in zip(job.examples, pairs, strict=True)
    )
    return replace(job, examples=tuple(rated), eta=recipe.baseline.eta)


def _progress_to(sink: Sink) -> Callable[[TrainingJob], Progress]:
    def of(job: TrainingJob) -> Progress:
        return lambda update, updates, loss: sink.advance(job.model, 0.99 * update / max(updates, 1))

    return of


def _rows_to(sink: Sink) -> Callable[[TrainingJob, TrainingReport], None]:
    def write(job: TrainingJob, report: TrainingReport) -> None:
        sink.write(
            Trained(
                model=job.model,
                sha256=files.sha256_tree(job.out),
                pairs=report.pairs,
                dropped=report.dropped,
                steps=report.steps,
                first_loss=report.first_loss,
                mean_loss=report.mean_loss,
                tokens=report.tokens,
                seconds=report.seconds,
            )
        )

    return write


def example_of(pair: Pair, renderer: Renderer, fingerprint: str) -> PreferenceExample:
    """A pair as the model reads it: the prompt as in combat, the responses with the ids that were sampled.

    Where a contestant has another tokenizer its text is encoded anew, its thinking as this model would write it, with an end-of-sequence token
    if it ended by itself.
    """
    prompt = renderer.combat(pair.messages)
    sides = (
        (pair.chosen, pair.thinking[0], pair.chosen_token_ids, pair.tokenizers[0], pair.finished[0]),
        (pair.rejected, pair.thinking[1], pair.rejected_token_ids, pair.tokenizers[1], pair.finished[1]),
    )
    chosen, rejected = (
        ids
        if tokenizer == fingerprint and ids
        else renderer.completion(text, finished, thinking, prompt.state)
        for text, thinking, ids, tokenizer, finished in sides
    )
    return PreferenceExample(prompt.token_ids or (), chosen, rejected)


def _tokenizer(engine: Engine, model: ModelRef, run: Run) -> tuple[Renderer, str]:
    """The renderer that `model` trains with, and its tokenizer's fingerprint. Where an endpoint answers, the tokenizer is with the weights, here."""
    renderer = engine.renderer(model)
    if renderer.tokenizer is not None:
        return renderer, engine.tokenizer_fingerprint(model)
    recipe = run.recipe
    local = load_renderer(model.base, recipe.engine.context_length, recipe.pool.trust_remote_code, run.chat)
    return local, fingerprint(local.tokenizer)
