"""Compares this run with another one: the same kind of choice from both, with a paired test over items."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparta.errors import SpartaError
from sparta.evaluation.items import items_file, items_of
from sparta.evaluation.scores import scores
from sparta.evaluation.selection import ALL, LAST
from sparta.evaluation.summary import (
    CheckpointChoice,
    RunComparison,
    TaskScores,
    choice_of,
    format_of_scores,
    read_summary,
)
from sparta.names import suggested
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.run_budget import budget_of
from sparta.tasks.base import Metric
from sparta.tasks.registry import task_named


@dataclass(frozen=True)
class OtherRun:
    """Another run with its scores on a task. values: on the test split, by (choice's `what`, metric), then by item id."""

    run: Run
    task: str
    scores: TaskScores
    chosen_on: str
    values: Mapping[tuple[str, str], Mapping[str, float]]

    @property
    def title(self) -> str:
        return f"{self.run.recipe.name} ({self.run.info.run_id})"

    def compare(
        self,
        run: Run,
        choices: list[CheckpointChoice],
        metrics: tuple[Metric, ...],
        say: Callable[[str], None],
    ) -> list[RunComparison]:
        """Comparisons of the choice of `run` with this run's, by every metric that both have grades of; `say` reports skipped metrics.

        The choice is the best of all checkpoints if both runs tested one, else the best of the last pool. Raises SpartaError if the runs have
        different items under one id.
        """
        # Only here: it imports scipy.
        from sparta.evaluation.statistics import paired

        ours = {choice.what: choice for choice in choices if choice.test}
        kinds = [what for what in (ALL, LAST) if what in ours]
        theirs = choice_of(self.scores, kinds, self.chosen_on)
        if theirs is None:
            raise _nothing_to_compare(self.run, self.task, self.chosen_on)
        self._require_same_items(run)
        mine, found = ours[theirs.what], []
        for metric in metrics:
            a = scores(run, "test", self.task, metric.name, (mine.checkpoint,))[mine.checkpoint].values
            b = self.values.get((theirs.what, metric.name), {})
            if not a.keys() & b.keys():
                say(
                    f"{self.task}: {metric.name} is not compared with {self.title}: no test item has a grade in both runs "
                    f"({len(a)} of {mine.checkpoint} here, {len(b)} of {theirs.checkpoint} there)"
                )
                continue
            result = paired(a, b)
            found.append(
                RunComparison(
                    other=self.title,
                    what=theirs.what,
                    chosen_on=self.chosen_on,
                    metric=metric.name,
                    checkpoint=mine.checkpoint,
                    other_checkpoint=theirs.checkpoint,
                    difference=result.difference,
                    p=result.p,
                    n=result.n,
                    budget=budget_of(run),
                    other_budget=budget_of(self.run),
                )
            )
        return found

    def _require_same_items(self, run: Run) -> None:
        """Raises SpartaError if items differ. They are paired by id, which may be just a line number."""
        theirs = {item.item_id: item for item in items_of(self.run, self.task, "test")}
        for item in items_of(run, self.task, "test"):
            if theirs.get(item.item_id, item) != item:
                raise SpartaError(
                    f"{self.task}: the test item {item.item_id} differs between {items_file(self.run, self.task, 'test')} and "
                    f"{items_file(run, self.task, 'test')}: compare runs that were scored on the same data with the same prompts"
                )


def other_run(path: Path, task: str, chosen_on: str) -> OtherRun:
    """The run in `path` (a state directory, or its evals/) with its scores on `task`.

    Raises SpartaError, naming the run to score, if it has none on the test split, or if they are incomplete or outdated.
    """
    root = path.parent if path.name == "evals" and not (path / "run.json").is_file() else path
    run = Run.open(StateDir(root))
    found = read_summary(run.state).tasks.get(task)
    if found is None or choice_of(found, (ALL, LAST), chosen_on) is None:
        raise _nothing_to_compare(run, task, chosen_on)
    try:
        values = {
            (choice.what, metric): scores(run, "test", task, metric, (choice.checkpoint,))[
                choice.checkpoint
            ].values
            for choice in found.choices
            if choice.chosen_on == chosen_on
            for metric in choice.test
        }
        rubrics = {metric.name: metric.rubric for metric in task_named(task, run.recipe.data).metrics}
        now = format_of_scores(run, task, judged=any(rubrics[scale.name] for scale in found.metrics))
        items = len(items_of(run, task, "test"))
    except SpartaError as error:
        raise SpartaError(
            f"the scores of {root} on {task} are incomplete ({error}); {_command(run, task, chosen_on)}"
        ) from None
    if (now, items) != (found.prompt_format, found.items["test"]):
        raise SpartaError(
            f"{run.state.recipe_yaml} was changed since {task} was scored (then {found.prompt_format}, {found.items['test']} test items; now "
            f"{now}, {items}): {_command(run, task, chosen_on)}"
        )
    return OtherRun(run, task, found, chosen_on, values)


def _nothing_to_compare(run: Run, task: str, chosen_on: str) -> SpartaError:
    return SpartaError(
        f"{run.state.root} has no test answers to {task} to compare with: {_command(run, task, chosen_on)}"
    )


def _command(run: Run, task: str, chosen_on: str) -> str:
    chosen = ("--select-on", chosen_on) if chosen_on != task else ()
    return f"score it first, with {suggested('evaluate', run.state.root, '--tasks', task, '--all', *chosen)}"
