"""The model card of an exported model, made from what the state knows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from sparta import __version__
from sparta.evaluation.answer import checkpoint_name
from sparta.evaluation.summary import CheckpointChoice, Scale, TaskScores, read_summary
from sparta.names import quoted
from sparta.pool.serving import serve_command
from sparta.recipes.pool import HUB, on_hub
from sparta.store import files
from sparta.store.records import Member
from sparta.store.run import Run
from sparta.store.run_budget import budget_in_words, spent
from sparta.store.stats import IterationStats

PAPER = "https://arxiv.org/abs/2506.04721"


@dataclass(frozen=True)
class Exported:
    """One model to export: `member` of the pool of iteration `t`. base: the folder of its base. merged: whether base and adapter are one."""

    run: Run
    t: int
    member: Member
    base: Path
    merged: bool

    @property
    def checkpoint(self) -> str:
        return checkpoint_name(self.run, self.t, self.member.name)

    @property
    def public_base(self) -> str | None:
        """The base's name on the hub; None if it is not from there: then no name of it means anything to others."""
        reference = self.member.base
        return on_hub(reference)[0] if reference.startswith(HUB) else None

    def trial(self, folder: Path, base: object = None) -> str:
        """A command that serves the exported folder. base: what it calls the base; default: its name on the hub, or its folder."""
        if self.merged:
            return quoted("vllm", "serve", folder)
        adapter, reference = self.run.state.inside(self.member.adapter), self.member.base
        return serve_command(
            base or self.public_base or self.base, self.member.name, adapter, reference, folder
        )


def model_card(made: Exported) -> str:
    """README.md of the exported folder: YAML for the hub, then what it is, how good, what it cost, how to load it."""
    run, name = made.run, made.member.name
    head = {
        **({"base_model": made.public_base} if made.public_base else {}),
        "library_name": "transformers" if made.merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["sparta-alignment", "dpo", *([] if made.merged else ["lora"])],
    }
    data = run.recipe.data
    what = f"task {data.task}" if data.task else "own instructions"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {run.recipe.name}: {name} after {made.t} iterations",
        "",
        f"{'Weights' if made.merged else 'A LoRA adapter'} of the model `{name}`, {_aligned(run, made.t)}.",
        "",
        "| | |",
        "|---|---|",
        f"| base | `{made.public_base or made.base.name}`{'' if made.public_base else ', not from the hub'} |",
        f"| method | `{run.recipe.method}`, iteration {made.t} of {run.recipe.iterations}, {run.recipe.combats:,} combats an iteration |",
        f"| pool | {', '.join(f'`{model}`' for model in run.models)} |",
        *_precision(made),
        f"| data | {len(run.instructions):,} instructions, {what} |",
        f"| recipe, seed | `{run.recipe.name}`, {run.recipe.seed} |",
        f"| run | `{run.info.run_id}`, Sparta {__version__} |",
        f"| adapter | sha256 of its files `{made.member.sha256}` |",
        "",
        "## Scores",
        "",
        *_scores(made),
        "",
        "## Cost",
        "",
        *_cost(made),
        "",
        "## Use",
        "",
        *_use(made),
    ]
    return "\n".join(lines) + "\n"


def _precision(made: Exported) -> Iterator[str]:
    """The precision of the base in the run, if this folder is not in it."""
    if made.run.recipe.engine.quantize is None:
        return
    here = (
        "here the adapter is merged into the base in full precision"
        if made.merged
        else "load it so for the same answers"
    )
    yield f"| precision | trained and scored on the base in 4 bits ({made.run.recipe.engine.quantize}, bitsandbytes); {here} |"


def _aligned(run: Run, t: int) -> str:
    if t == 0:
        return "as it was before it was aligned"
    if run.recipe.method == "sparta":
        return f"one of {len(run.models)} that were aligned together by [Sparta Alignment]({PAPER})"
    return f"aligned by the method `{run.recipe.method}`, a baseline of [Sparta Alignment]({PAPER})"


def _scores(made: Exported) -> Iterator[str]:
    """Validation and test scores of the checkpoint on every task that was scored."""
    rows = [
        row
        for task, scores in read_summary(made.run.state).tasks.items()
        for row in _rows(made, task, scores)
    ]
    if not rows:
        yield "This checkpoint was not scored."
        return
    yield "| task | metric | validation | test | 95 % interval |"
    yield "|---|---|---|---|---|"
    yield from rows
    yield ""
    yield (
        "Validation scores were used to choose checkpoints and are therefore too high. The interval is a bootstrap over the test items; it does not cover "
        "the randomness of training."
    )


def _rows(made: Exported, task: str, scores: TaskScores) -> Iterator[str]:
    validation = scores.validation.get(made.checkpoint)
    tested = next(
        (choice for choice in scores.choices if choice.checkpoint == made.checkpoint and choice.test), None
    )
    if validation is None and tested is None:
        return
    for number, scale in enumerate(scores.metrics):
        # Checkpoints are chosen by the first metric, the only one whose validation score is kept.
        first = _shown(validation, scale) if number == 0 else ""
        yield f"| {task} | {scale.name} | {first} | {_tested(tested, scale)} |"


def _tested(choice: CheckpointChoice | None, scale: Scale) -> str:
    found = choice.test.get(scale.name) if choice is not None else None
    if found is None or found.mean is None:
        return "not tested | "
    return f"{_shown(found.mean, scale)} | {_shown(found.low, scale)} to {_shown(found.high, scale)}"


def _shown(value: float | None, scale: Scale) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if scale.top == 1 else f"{value:.2f} of {scale.top:g}"


def _cost(made: Exported) -> Iterator[str]:
    """Tokens and GPU time of the run up to this iteration: all members together."""
    if made.t == 0:
        yield "Nothing of the run went into this model."
        return
    tokens = spent(made.run, made.t)
    counted = tokens.in_words if tokens.total else "not counted by the version that made them"
    yield f"Tokens of the whole pool up to this iteration: {counted}. Budget: {budget_in_words(made.run.recipe)}."
    stats = [files.read_measured(made.run.iteration(t).stats, IterationStats) for t in range(1, made.t + 1)]
    seconds = sum(one.gpu_seconds for one in stats if one is not None)
    if seconds:
        yield f"GPU time up to this iteration: {seconds / 3600:.2f} hours."


def _use(made: Exported) -> Iterator[str]:
    """How to load the folder in three programs."""
    if made.merged:
        yield "```python"
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield 'model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="auto")'
    else:
        yield "```python"
        yield "from peft import AutoPeftModelForCausalLM"
        yield "from transformers import AutoTokenizer"
        yield 'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER", dtype="auto")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    yield "```"
    yield ""
    yield "```bash"
    yield made.trial(Path("FOLDER"), made.public_base or "BASE")
    yield "```"
    if not made.merged and not made.public_base:
        yield ""
        yield "BASE is the folder of the base model, which is not on the hub; `base_model_name_or_path` in `adapter_config.json` names it too."
