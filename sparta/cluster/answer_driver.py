"""Having checkpoints answer the items of a split, and the judge grade what only a judge can: two arrays, whatever the number of tasks."""

from collections.abc import Callable, Mapping

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.console import Screen
from sparta.cluster.driver import Driver
from sparta.cluster.launchers import launcher_for
from sparta.phases.base import ArrayPhase
from sparta.phases.evaluate import Evaluate
from sparta.phases.grade import GradeAnswers
from sparta.store.run import Run
from sparta.tasks.base import Split

Entries = Mapping[str, tuple[str, ...]]
"""By task, who is asked: iterations (iter_05: its whole pool) or checkpoints (iter_05-adder)."""


class AnswerDriver:
    """Completes the answers and grades of `run` where its recipe says. `still_ours` is called before work is dealt out."""

    def __init__(self, run: Run, screen: Screen, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._launcher = launcher_for(run)
        self._driver = Driver(run, self._launcher, screen, still_ours)
        self.loads: list[str] = []
        """What was dealt out so far, in words: tasks, and bases that they loaded."""

    def check(self, split: Split, asked: Entries, graded: Entries) -> None:
        """Raises SpartaError where models or judge cannot be asked, as far as that can be seen before anything starts."""
        Evaluate(split, asked).check(self._run)
        if graded:
            GradeAnswers(split, graded).check(self._run)

    def complete(self, split: Split, asked: Entries, graded: Entries) -> None:
        """Every answer that is asked for is there afterwards, and the judge's grades of those in `graded`."""
        self._complete(Evaluate(split, asked))
        if graded:
            self._complete(GradeAnswers(split, graded))

    def is_complete(self, split: Split, asked: Entries, graded: Entries) -> bool:
        """Whether `complete` would find nothing to do."""
        if Evaluate(split, asked).missing(self._run, 0):
            return False
        return not graded or not GradeAnswers(split, graded).missing(self._run, 0)

    def _complete(self, phase: ArrayPhase) -> None:
        # Where all is there, it is read on any machine.
        if phase.missing(self._run, 0):
            self._launcher.check([phase])
        attempts = AttemptDir(self._run, phase, 0)
        before = attempts.numbers
        self._driver.complete(phase, 0)
        records = [
            record
            for attempt in attempts.all()
            if attempt.number not in before
            for record in attempts.records(attempt)
        ]
        if records:
            self.loads.append(f"{phase.title} {len(records)} ({sum(record.loads for record in records)})")
