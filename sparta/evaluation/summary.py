"""evals/summary.json: what a run's checkpoints score, of all tasks that were ever asked for. Written by scoring.py, read by whoever wants the numbers."""

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


class Scale(msgspec.Struct, frozen=True):
    """A metric and its best value; the worst is 0."""

    name: str
    top: float


class Interval(msgspec.Struct, frozen=True):
    """The mean of one metric over the graded items of a test split, with its bootstrap 95 % interval. All None where none was graded."""

    mean: float | None
    low: float | None
    high: float | None
    ungraded: int = 0


class Choice(msgspec.Struct, frozen=True):
    """The best model of some pools on validation.

    chosen_on, by: the task on whose validation split, and its metric, of which `validation` is the mean. iterations: among whose models.
    test: by metric; empty where the test split was not asked for.
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


class Comparison(msgspec.Struct, frozen=True):
    """A paired test of the test scores of one choice against those of another run's, item by item.

    other: name and id of that run. difference: ours less theirs, a mean over the n items that both were graded on. p: two-sided.
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

    @property
    def key(self) -> tuple[str, ...]:
        return self.other, self.what, self.chosen_on, self.metric


class TaskScores(msgspec.Struct, frozen=True):
    """One task. metrics: the first is the one that checkpoints are chosen by. items: how many, by split.

    way: how they were asked (with which template, up to how many tokens) and by whom graded, as folders below evals/ are called. validation,
    ungraded: of every checkpoint that was scored on validation, the mean of the first metric and how many answers have none. unanswered: in how many
    of these the thinking never ended, of checkpoints with any. looks: at the test split for these choices, without their times.
    """

    metrics: list[Scale]
    items: dict[str, int]
    way: str
    validation: dict[str, float | None] = {}
    ungraded: dict[str, int] = {}
    unanswered: dict[str, int] = {}
    choices: list[Choice] = []
    looks: list[HoldoutAccess] = []
    against: list[Comparison] = []


class Summary(msgspec.Struct, frozen=True):
    """evals/summary.json. tasks: by name."""

    tasks: dict[str, TaskScores] = {}


def format_of_scores(run: Run, task: str, judged: bool) -> str:
    """How `task` is asked and graded in `run`, see TaskScores. judged: whether a judge gives any of its metrics."""
    parts = [Answers(task, "validation", ()).folder(run).name]
    if chat := run.recipe.chat.model_dump(mode="json", exclude_defaults=True):
        parts.append(json.dumps(chat, sort_keys=True))
    if judged:
        parts += [Grades(task, "validation", ()).folder(run).name, judge_named(run.recipe).base]
    return " ".join(parts)


def summary_file(state: StateDir) -> Path:
    return state.evals / "summary.json"


def read_summary(state: StateDir) -> Summary:
    """What has been summed up so far; nothing where nothing was scored."""
    path = summary_file(state)
    remedy = "restore it from a copy, or remove it and score again"
    return files.read_json(path, Summary, remedy) if present(path) else Summary()


def merge_into_summary(state: StateDir, fresh: Mapping[str, TaskScores]) -> None:
    """Add `fresh` scores to the summary on disk: other tasks stay, and of the same task what was scored under the same conditions."""
    tasks = read_summary(state).tasks
    merged = {name: merged_scores(tasks.get(name), scores) for name, scores in fresh.items()}
    files.write_json(summary_file(state), Summary({**tasks, **merged}))


def merged_scores(before: TaskScores | None, now: TaskScores) -> TaskScores:
    """`now` with what `before` knows beside it. Nothing of `before` where one of both was scored otherwise: on other items, in another way."""
    if before is None or not _comparable(before, now):
        return now
    choices = {choice.key: choice for choice in before.choices}
    for choice in now.choices:
        known = choices.get(choice.key)
        # Chosen again without a look at the test split: what is known of it stays.
        kept = known is not None and known.checkpoint == choice.checkpoint and not choice.test
        choices[choice.key] = msgspec.structs.replace(choice, test=known.test) if kept and known else choice
    chosen = {(choice.key, choice.checkpoint) for choice in choices.values() if choice.test}
    against = {
        comparison.key: comparison
        for comparison in (*before.against, *now.against)
        if ((comparison.what, comparison.chosen_on), comparison.checkpoint) in chosen
    }
    looks = {
        (look.why, look.chosen_on): look
        for look in (*before.looks, *now.looks)
        if ((look.why, look.chosen_on), look.checkpoint) in chosen
    }
    return TaskScores(
        metrics=now.metrics,
        items={**before.items, **now.items},
        way=now.way,
        validation={**before.validation, **now.validation},
        ungraded={**before.ungraded, **now.ungraded},
        unanswered={
            **{name: count for name, count in before.unanswered.items() if name not in now.validation},
            **now.unanswered,
        },
        choices=list(choices.values()),
        looks=list(looks.values()),
        against=list(against.values()),
    )


def _comparable(one: TaskScores, other: TaskScores) -> bool:
    same_items = all(
        one.items[split] == other.items[split] for split in one.items.keys() & other.items.keys()
    )
    return same_items and (one.metrics, one.way) == (other.metrics, other.way)


def choice_of(scores: TaskScores, kinds: Sequence[str], chosen_on: str) -> Choice | None:
    """The first of `kinds` that was chosen on `chosen_on` and tested; None where none was."""
    tested = {
        choice.what: choice for choice in scores.choices if choice.chosen_on == chosen_on and choice.test
    }
    return next((tested[what] for what in kinds if what in tested), None)
