"""What a person requests of an evaluation, and the plan it comes to. Requests that cannot be met are refused before anything starts."""

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

    tasks: comma-separated names. split: validation stops after the choice; test requires validation to be complete. every: all pools, not only
    the first and the last. select_on: the task whose validation split selects checkpoints for all tasks; None: each task's own. against: the
    state of another run. cluster, profile: where this evaluation runs. answers_from: the state of a run whose answers and grades are adopted where
    they would be the same.
    """

    state: Path = DEFAULT_STATE
    tasks: str | None = None
    split: Stage = "both"
    every: bool = False
    select_on: str | None = None
    against: Path | None = None
    cluster: ClusterKind | None = None
    profile: str | None = None
    answers_from: Path | None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """What will be scored.

    tasks: requested tasks by name, scored on test. choosing: tasks whose validation splits select checkpoints. iterations: the pools to score,
    ascending. judge: whether the recipe names one.
    """

    tasks: dict[str, Task]
    choosing: dict[str, Task]
    iterations: tuple[int, ...]
    judge: bool

    @property
    def every(self) -> dict[str, Task]:
        """All tasks that need answers."""
        return {**self.choosing, **self.tasks}

    def chosen_on(self, name: str) -> str:
        """The task whose validation split selects checkpoints for the task `name`."""
        return name if name in self.choosing else next(iter(self.choosing))

    def metrics(self, name: str) -> tuple[Metric, ...]:
        """The metrics of a task that can be computed; the first one selects checkpoints."""
        return tuple(metric for metric in self.every[name].metrics if self.judge or metric.rubric is None)

    def left_out(self, name: str) -> tuple[Metric, ...]:
        """The metrics of a task that are skipped because they need a judge and there is none."""
        return tuple(metric for metric in self.every[name].metrics if metric not in self.metrics(name))


def plan_evaluation(run: Run, request: EvaluateRequest) -> EvaluationPlan:
    """The plan of `request` for `run`.

    Raises SpartaError where a task is unknown, a needed split is missing or has no answers to grade by, or selection needs a judge and there is
    none. This checks that test splits exist; no model answers them before the choice.
    """
    if request.against is not None and request.split == "validation":
        raise SpartaError("--against compares test scores: leave --split validation out")
    data, committed = run.recipe.data, run.state.committed()
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no pool to score yet: make it with {suggested('launch', '--state', run.state.root)}"
        )
    tasks = {name: task_named(name, data) for name in requested_tasks(run, request.tasks)}
    choosing = (
        {request.select_on: task_named(request.select_on, data)} if request.select_on is not None else tasks
    )
    iterations = committed if request.every else sorted({committed[0], committed[-1]})
    found = EvaluationPlan(tasks, choosing, tuple(iterations), run.recipe.evaluation.judge is not None)
    for name, task in found.every.items():
        first = task.metrics[0]
        if first in found.left_out(name):
            raise SpartaError(
                f"{name} is scored by {first.name}, which needs a judge, and {run.state.recipe_yaml} names none: set evaluation.judge"
            )
    for task in choosing.values():
        require_items(run, task, "validation")
    for task in tasks.values() if request.split != "validation" else ():
        require_items(run, task, "test")
    return found


def requested_tasks(run: Run, tasks: str | None) -> Sequence[str]:
    """The names of the tasks in --tasks, each once; by default those of the recipe. Raises SpartaError where there is none."""
    if tasks is None:
        names: Sequence[str] = run.recipe.scored_on
        if not names:
            raise SpartaError(
                f"{run.state.recipe_yaml} names no task to score on: add --tasks, or set evaluation.tasks or data.validation"
            )
    else:
        names = [name for name in map(str.strip, tasks.split(",")) if name]
        if not names:
            raise SpartaError(
                "--tasks names no task: give names separated by commas, as in --tasks gsm8k,medqa"
            )
    return list(dict.fromkeys(names))


def require_items(run: Run, task: Task, split: Split) -> None:
    """Raises SpartaError where `split` is missing, or where the task's first metric can grade none of its items."""
    if present(items_file(run, task.name, split)):
        return
    if isinstance(task, Dataset):
        # prepare_data refuses items without an answer.
        prepared.split_file(prepared.folder_of(run.recipe.data), task.name, split)
        return
    items, metric = task.items(split, run.recipe.data), task.metrics[0]
    if metric.rubric is None and not any(item.answer is not None or item.right for item in items):
        raise SpartaError(
            f"{task.name}: no item of its {split} split has an answer, which {metric.name} needs: give its rows an `answer`, or have a judge grade "
            "them (data.grading: judge)"
        )
