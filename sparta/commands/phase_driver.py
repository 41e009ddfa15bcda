"""Carries out phases of evaluations, one after another, on the cluster that the recipe names."""

from collections.abc import Callable

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
from sparta.cluster.registry import launcher_for
from sparta.phases.base import ArrayPhase
from sparta.screen import Screen
from sparta.store.run import Run


class PhaseDriver:
    """Completes phases of `run`. `still_ours` is called before work is assigned."""

    def __init__(self, run: Run, screen: Screen, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._screen = screen
        self._launcher = launcher_for(run)
        self._driver = Driver(run, self._launcher, screen, still_ours)
        self._loads: list[str] = []

    def complete(self, phase: ArrayPhase) -> None:
        """Make every missing row of `phase`."""
        # A complete phase can be read on any machine, even one that could not run it.
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
            self._loads.append(f"{phase.title} {len(records)} ({sum(record.loads for record in records)})")

    def say_loads(self) -> None:
        """Say, for each phase that ran, its tasks and (model loads)."""
        if self._loads:
            self._screen.say(f"tasks (model loads): {', '.join(self._loads)}")
