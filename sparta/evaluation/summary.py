"""evals/summary.json: the scores of a run's checkpoints, on all tasks that were ever evaluated. Written by the evaluate command."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sparta.evaluation.answer import Answers
from sparta.evaluation.grade import Grades
from sparta.evaluation.holdout_log import HoldoutAccess
from sparta.pool.members import judge_named
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.run_budget import RunBudget


class Scale(msgspec.Struct, frozen=True):
    """A metric and its best value; the worst is 0."""

    name: str
    top: float


class Interval(msgspec.Struct, frozen=True):
    """The mean of one metric over the graded items of a test split, with its 95 % bootstrap interval. All None if no item is graded."""

    mean: float | None
    low: float | None
    high: float | None
    ungraded: int = 0


class CheckpointChoice(msgspec.Struct, frozen=True):
    """The best model of some pools on validation.

    chosen_on, by: the task on whose validation split it was chosen, and the metric, with mean `validation`. iterations: whose models it was
    chosen among. test: by metric; empty if the test split was not requested.
    """

    what: str
    checkpoint: str
    chosen_on: str
    by: Scale
    iterations: tuple[int, ...]
    validation: float
    test: dict[str, Interval] = {}

    @property
    def key(self) -> tuple[str, str]:
        return self.what, self.chosen_on


class RunComparison(msgspec.Struct, frozen=True):
    """A paired test, over items, of the test scores of one choice against those of another run's.

    other: name and id of that run. difference: ours minus theirs, the mean over the n items graded in both runs. p: two-sided. budget, other_budget:
    of the two runs; None in a summary of version 0.1.0.
    """

    other: str
    what: str
    chosen_on: str
    metric: str
    checkpoint: str
    other_checkpoint: str
    difference: float
    p: float
    n: int
    budget: RunBudget | None = None
    other_budget: RunBudget | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return self.other, self.what, self.chosen_on, self.metric


class TaskScores(msgspec.Struct, frozen=True):
    """One task. metrics: checkpoints are chosen by the first one. items: how many, by split.

    prompt_format: how items were prompted (template, token limit) and who graded, in the words of the folder names below evals/; `way` on disk.
    validation, ungraded: by checkpoint scored on validation, the mean of the first metric, and how many answers have none. unanswered: in how many
    of these the thinking never ended, if any. accesses: to the test split for these choices, without their times; `looks` on disk.
    """

    metrics: list[Scale]
    items: dict[str, int]
    prompt_format: str = msgspec.field(name="way")
    validation: dict[str, float | None] = {}
    ungraded: dict[str, int] = {}
    unanswered: dict[str, int] = {}
    choices: list[CheckpointChoice] = []
    accesses: list[HoldoutAccess] = msgspec.field(default_factory=list, name="looks")
    against: list[RunComparison] = []


class EvaluationSummary(msgspec.Struct, frozen=True):
    """evals/summary.json. tasks: by name."""

    tasks: dict[str, TaskScores] = {}


def format_of_scores(run: Run, task: str, judged: bool) -> str:
    """How `task` is prompted and graded in `run`, see TaskScores.prompt_format. judged: whether any of its metrics needs a judge."""
    parts = [Answers(task, "validation", ()).folder(run).name]
    if chat := run.recipe.chat.model_dump(mode="json", exclude_defaults=True):
        parts.append(json.dumps(chat, sort_keys=True))
    if judged:
        parts += [Grades(task, "validation", ()).folder(run).name, judge_named(run.recipe).base]
    return " ".join(parts)


def summary_file(state: StateDir) -> Path:
    return state.evals / "summary.json"


def read_summary(state: StateDir) -> EvaluationSummary:
    """The summary on disk; empty if nothing was scored yet."""
    path = summary_file(state)
    remedy = "restore it from a copy, or remove it and score again"
    return files.read_json(path, EvaluationSummary, remedy) if present(path) else EvaluationSummary()


def merge_into_summary(state: StateDir, fresh: Mapping[str, TaskScores]) -> None:
    """Add `fresh` scores to the summary on disk. Other tasks stay; earlier scores of the same task stay if conditions are the same."""
    tasks = read_summary(state).tasks
    merged = {name: merged_scores(tasks.get(name), scores) for name, scores in fresh.items()}
    files.write_json(summary_file(state), EvaluationSummary({**tasks, **merged}))


def merged_scores(before: TaskScores | None, now: TaskScores) -> TaskScores:
    """`now` with the scores of `before` that it lacks; `now` alone if items, metrics or prompt format differ."""
    if before is None or not _comparable(before, now):
        return now
    choices = {choice.key: choice for choice in before.choices}
    for choice in now.choices:
        known = choices.get(choice.key)
        # The same choice again, without the test split: keep its earlier test scores.
        kept = known is not None and known.checkpoint == choice.checkpoint and not choice.test
        choices[choice.key] = msgspec.structs.replace(choice, test=known.test) if kept and known else choice
    chosen = {(choice.key, choice.checkpoint) for choice in choices.values() if choice.test}
    against = {
        comparison.key: comparison
        for comparison in (*before.against, *now.against)
        if ((comparison.what, comparison.chosen_on), comparison.checkpoint) in chosen
    }
    accesses = {
        (access.why, access.chosen_on): access
        for access in (*before.accesses, *now.accesses)
        if ((access.why, access.chosen_on), access.checkpoint) in chosen
    }
    return TaskScores(
        metrics=now.metrics,
        items={**before.items, **now.items},
        prompt_format=now.prompt_format,
        validation={**before.validation, **now.validation},
        ungraded={**before.ungraded, **now.ungraded},
        unanswered={
            **{name: count for name, count in before.unanswered.items() if name not in now.validation},
            **now.unanswered,
        },
        choices=list(choices.values()),
        accesses=list(accesses.values()),
        against=list(against.values()),
    )


def _comparable(one: TaskScores, other: TaskScores) -> bool:
    same_items = all(
        one.items[split] == other.items[split] for split in one.items.keys() & other.items.keys()
    )
    return same_items and (one.metrics, one.prompt_format) == (other.metrics, other.prompt_format)


def choice_of(scores: TaskScores, kinds: Sequence[str], chosen_on: str) -> CheckpointChoice | None:
    """The first of `kinds` that was chosen on the task `chosen_on` and has test scores; None if there is none."""
    tested = {
        choice.what: choice for choice in scores.choices if choice.chosen_on == chosen_on and choice.test
    }
    return next((tested[what] for what in kinds if what in tested), None)
