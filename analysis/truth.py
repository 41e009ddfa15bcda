"""How well labels and votes agree with gold answers: python analysis/truth.py [STATE]

For a run on a task with gold answers: in how many of the combats with exactly one correct response that response won, and the mean votes of
each judge on correct and on wrong responses. Computed from the state alone.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich import box
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.program import parser_of, run_program
from sparta.errors import SpartaError
from sparta.screen import plain_console
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.records import Response, Result, Vote, response_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.tasks.base import Item, Task
from sparta.tasks.registry import task_named


@dataclass(frozen=True)
class Agreement:
    """One iteration. decided, undecided: combats with exactly one correct response that made a pair, or did not. agreed: decided ones that the
    correct response won. right, wrong: each judge's mean vote on correct and on wrong responses. accuracy: share of correct responses.
    """

    t: int
    decided: int
    agreed: int
    undecided: int
    accuracy: float
    right: dict[str, float]
    wrong: dict[str, float]

    @property
    def share(self) -> float:
        """Share of the combats with exactly one correct response that this response won; NaN if there are none."""
        combats = self.decided + self.undecided
        return self.agreed / combats if combats else float("nan")

    @property
    def discerning(self) -> int:
        """How many judges have a mean vote on correct responses at least one point above that on wrong ones."""
        return sum(self.right[judge] - self.wrong[judge] >= 1.0 for judge in self.right)


def agreement(run: Run, t: int) -> Agreement:
    """Compare labels and votes of iteration t with the gold answers of the run's task. Raises SpartaError if the run has no task."""
    if run.recipe.data.task is None:
        raise SpartaError(
            f"the run in {run.state.root} has no task with gold answers: name the state of a run with data.task"
        )
    require_combats(run, t)
    grades = right_responses(run, t)
    decided = agreed = undecided = 0
    for result in files.read_rows(run.iteration(t).combats, Result):
        first, second = (grades[response_key(result.combat_id, model)] for model in result.models)
        if first == second:
            continue
        if result.winner is None:
            undecided += 1
            continue
        decided += 1
        agreed += grades[response_key(result.combat_id, result.winner)]
    scores: dict[tuple[str, bool], list[float]] = {}
    for vote in iter_shards(run.iteration(t).votes, Vote):
        if vote.score is not None:
            key = (vote.judge, grades[response_key(vote.combat_id, vote.contestant)])
            scores.setdefault(key, []).append(vote.score)
    means = {key: fmean(values) for key, values in scores.items()}
    judges = [judge for judge in run.models if (judge, True) in means and (judge, False) in means]
    return Agreement(
        t=t,
        decided=decided,
        agreed=agreed,
        undecided=undecided,
        accuracy=fmean(grades.values()),
        right={judge: means[judge, True] for judge in judges},
        wrong={judge: means[judge, False] for judge in judges},
    )


def require_combats(run: Run, t: int) -> None:
    """Raises SpartaError where iteration t has no results of combats, because its method aligns one model."""
    if not present(run.iteration(t).combats):
        raise SpartaError(
            f"the run in {run.state.root} has no combats, because its method is {run.recipe.method}: name the state of a run of the method sparta"
        )


def right_responses(run: Run, t: int) -> dict[str, bool]:
    """Whether each response of iteration t is correct, by its key. The run must have a task."""
    task = task_named(run.recipe.data.task or "", run.recipe.data)
    gold = {item.item_id: item for item in task.items("train", run.recipe.data)}
    plan = {combat.combat_id: combat for combat in run.plan(t)}
    return {
        response.key: _is_right(task, gold[plan[response.combat_id].prompt_id], response.text)
        for response in iter_shards(run.iteration(t).responses, Response)
    }


def _is_right(task: Task, item: Item, text: str) -> bool:
    """Whether `text` gets the best value of the task's first metric."""
    metric = task.metrics[0]
    return task.grade(item, text).get(metric.name) == metric.top


def _mean(votes: dict[str, float]) -> str:
    return f"{fmean(votes.values()):.2f}" if votes else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "iteration",
        "responses right",
        "decided",
        "right one won",
        "vote on right",
        "on wrong",
        "discerning judges",
    ):
        table.add_column(heading, justify="right")

    def work(args: argparse.Namespace, state: Path) -> None:
        run = Run.open(StateDir(state))
        for t in run.state.committed()[1:]:
            found = agreement(run, t)
            table.add_row(
                str(t),
                f"{found.accuracy:.1%}",
                f"{found.decided} of {found.decided + found.undecided}",
                f"{found.share:.1%}",
                _mean(found.right),
                _mean(found.wrong),
                f"{found.discerning} of {len(found.right)}",
            )
        plain_console().print(table)

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
