"""Do the labels agree with the truth? python analysis/truth.py [state]

For a run on a task with gold answers: of the combats in which exactly one response is right, in how many did the right one win; and
what each judge of an iteration gave to right and to wrong responses. Computed from the state alone.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich import box
from rich.table import Table

from sparta.errors import SpartaError
from sparta.screen import plain_console
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Response, Result, Vote, response_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.tasks.base import Item, Task
from sparta.tasks.registry import task_named


@dataclass(frozen=True)
class Agreement:
    """One iteration. decided: combats with exactly one right response that made a pair; agreed: those the right one won.

    right, wrong: mean vote of each judge on right and on wrong responses. accuracy: share of right responses.
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
        """Of all combats with exactly one right response, those that the right one won; not a number where there is none."""
        combats = self.decided + self.undecided
        return self.agreed / combats if combats else float("nan")

    @property
    def discerning(self) -> int:
        """Judges whose mean vote on right responses is at least one point above that on wrong ones."""
        return sum(self.right[judge] - self.wrong[judge] >= 1.0 for judge in self.right)


def agreement(run: Run, t: int) -> Agreement:
    """Labels and votes of iteration t against the gold answers of the run's task."""
    if run.recipe.data.task is None:
        raise SpartaError(f"{run.state.root} was not run on a task with gold answers")
    task = task_named(run.recipe.data.task, run.recipe.data)
    gold = {item.item_id: item for item in task.items("train", run.recipe.data)}
    plan = {combat.combat_id: combat for combat in run.plan(t)}
    grades = {
        response.key: _is_right(task, gold[plan[response.combat_id].prompt_id], response.text)
        for response in iter_shards(run.iteration(t).responses, Response)
    }
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
    given: dict[tuple[str, bool], list[float]] = {}
    for vote in iter_shards(run.iteration(t).votes, Vote):
        if vote.score is not None:
            key = (vote.judge, grades[response_key(vote.combat_id, vote.contestant)])
            given.setdefault(key, []).append(vote.score)
    means = {key: fmean(scores) for key, scores in given.items()}
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


def _is_right(task: Task, item: Item, text: str) -> bool:
    """Whether `text` has the best value of the metric that checkpoints are chosen by."""
    metric = task.metrics[0]
    return task.grade(item, text).get(metric.name) == metric.top


def _mean(votes: dict[str, float]) -> str:
    return f"{fmean(votes.values()):.2f}" if votes else "-"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("state", nargs="?", type=Path, default=Path("state"))
    args = parser.parse_args()
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
    try:
        run = Run.open(StateDir(args.state))
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
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    plain_console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
