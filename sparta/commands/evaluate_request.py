"""What an evaluation is asked for: tasks, splits, and where checkpoints are chosen; refused before anything starts where it cannot be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.commands.options import Stage
from sparta.errors import SpartaError
from sparta.evaluation.items import items_file
from sparta.names import DEFAULT_STATE, ClusterKind, suggested
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.tasks import prepared
from sparta.tasks.base import Metric, Split, Task
from sparta.tasks.dataset import Dataset
from sparta.tasks.registry import task_named


@dataclass(frozen=True)
class EvaluateRequest:
    """What a person typed. None: not given.

    tasks: names with commas between. split: validation stops at the choice, test takes it as complete. every: all pools, not the first and
    the last alone. select_on: the task on whose validation split checkpoints are chosen for all tasks; None: on each task's own. against: the
    state of another run. cluster, profile: where, this once.
    """

    state: Path = DEFAULT_STATE
    tasks: str | None = None
    split: Stage = "both"
    every: bool = False
    select_on: str | None = None
    against: Path | None = None
    cluster: ClusterKind | None = None
    profile: str | None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """What is going to be scored.

    tasks: whose test splits are wanted, by name. choosing: on whose validation splits checkpoints are chosen. iterations: whose pools, ascending.
    judge: whether there is one.
    """

    tasks: dict[str, Task]
    choosing: dict[str, Task]
    iterations: tuple[int, ...]
    judge: bool

    @property
    def every(self) -> dict[str, Task]:
        """All tasks that answers are wanted to."""
        return {**self.choosing, **self.tasks}

    def chosen_on(self, name: str) -> str:
        """The task on whose validation split checkpoints are chosen for the task `name`."""
        return name if name in self.choosing else next(iter(self.choosing))

    def metrics(self, name: str) -> tuple[Metric, ...]:
        """The metrics of a task that can be given; the first is the one that checkpoints are chosen by."""
        return tuple(metric for metric in self.every[name].metrics if self.judge or metric.rubric is None)

    def left_out(self, name: str) -> tuple[Metric, ...]:
        """The metrics of a task that only a judge can give, where there is none."""
        return tuple(metric for metric in self.every[name].metrics if metric not in self.metrics(name))


def plan_evaluation(run: Run, asked: EvaluateRequest) -> EvaluationPlan:
    """What `asked` comes to for `run`.

    Raises SpartaError where a task is unknown, a split that is needed is missing or has no answers to grade by, or checkpoints are to be chosen
    by what only a judge gives and there is none. A test split is looked for here, and asked of nobody before the choice.
    """
    if asked.against is not None and asked.split == "validation":
        raise SpartaError("--against compares test scores: leave --split validation out")
    data, committed = run.recipe.data, run.state.committed()
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no pool to score yet: make it with {suggested('launch', '--state', run.state.root)}"
        )
    tasks = {name: task_named(name, data) for name in _names(run, asked)}
    choosing = {asked.select_on: task_named(asked.select_on, data)} if asked.select_on is not None else tasks
    iterations = committed if asked.every else sorted({committed[0], committed[-1]})
    found = EvaluationPlan(tasks, choosing, tuple(iterations), run.recipe.evaluation.judge is not None)
    for name, task in found.every.items():
        first = task.metrics[0]
        if first in found.left_out(name):
            raise SpartaError(
                f"{name} is scored by {first.name}, which a judge gives, and {run.state.recipe_yaml} names none: set evaluation.judge"
            )
    for task in choosing.values():
        _require_items(run, task, "validation")
    for task in tasks.values() if asked.split != "validation" else ():
        _require_items(run, task, "test")
    return found


def _names(run: Run, asked: EvaluateRequest) -> Sequence[str]:
    if asked.tasks is None:
        names: Sequence[str] = run.recipe.scored_on
        if not names:
            raise SpartaError(
                f"{run.state.recipe_yaml} names no task to score on: add --tasks, or set evaluation.tasks or data.validation"
            )
    else:
        names = [name for name in map(str.strip, asked.tasks.split(",")) if name]
        if not names:
            raise SpartaError(
                "--tasks names no task: give one name or several with commas, as in --tasks gsm8k,medqa"
            )
    return list(dict.fromkeys(names))


def _require_items(run: Run, task: Task, split: Split) -> None:
    """Raises SpartaError where `split` cannot be had, or where no item of it can be graded by the task's first metric."""
    if present(items_file(run, task.name, split)):
        return
    if isinstance(task, Dataset):
        # Items without an answer were refused when it was prepared.
        prepared.split_file(prepared.folder_of(run.recipe.data), task.name, split)
        return
    items, metric = task.items(split, run.recipe.data), task.metrics[0]
    if metric.rubric is None and not any(item.answer is not None or item.right for item in items):
        raise SpartaError(
            f"{task.name}: no item of its {split} split has an answer to tell {metric.name} by: give its rows an `answer`, or have a judge grade "
            "them (data.grading: judge)"
        )
