"""Longest: the first member learns to answer at length, the others stay as they are."""

from collections.abc import Iterable, Sequence

from sparta.phases.count_words import CountWords, Length

from sparta.methods.base import IterationSummary, Method
from sparta.phases.base import Phase
from sparta.phases.commit import ROWS, Commit
from sparta.phases.generate import Generate
from sparta.phases.merge import Merge
from sparta.phases.plan import Plan
from sparta.phases.train import Train
from sparta.recipes.schema import Recipe
from sparta.store.run import Run


class Longest(Method):
    name = "longest"
    fewest_members = 3

    def __init__(self) -> None:
        rows = {**ROWS, "lengths": Length}
        self._phases = (
            Plan(),
            Generate(),
            CountWords(),
            Merge(),
            Train(self.learners),
            Commit(self.learners, rows=rows),
        )

    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        return self._phases

    @property
    def all_phases(self) -> Iterable[Phase]:
        return self._phases

    def learners(self, run: Run, t: int) -> Sequence[str]:
        return run.models[:1]

    def summary(self, run: Run, t: int) -> IterationSummary:
        return IterationSummary(
            f"longest, iteration {t}",
            ("who", "learns"),
            tuple((name, "yes" if name in self.learners(run, t) else "no") for name in run.models),
        )


METHOD = Longest()
