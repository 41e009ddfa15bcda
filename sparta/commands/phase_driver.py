"""Carries out phases of evaluations, one after another, on the cluster that the recipe names."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
from sparta.cluster.registry import launcher_for, settings_for
from sparta.commands.begin import check_state
from sparta.engines.factory import close_engine
from sparta.names import ClusterKind
from sparta.phases.base import ArrayPhase
from sparta.recipes.load import adjust
from sparta.screen import Screen
from sparta.store.cleanup import clear_abandoned
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run


@contextmanager
def locked_run(
    folder: Path, cluster: ClusterKind | None, profile: str | None, screen: Screen
) -> Iterator[tuple[Run, RunLock]]:
    """The verified run in `folder`, with its lock, for phases beside its iterations on the cluster that was asked for. Its engine is closed at the end."""
    # A stop request from a person or from SLURM: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = StateDir(folder)
    run = Run.open(state)  # before the lock, which writes
    with RunLock(state, screen.say) as lock:
        clear_abandoned(state)
        check_state(run).save()
        # For this process only: it does not change where the run itself is launched.
        run.recipe = adjust(run.recipe, settings_for(cluster, profile, run.recipe))
        try:
            yield run, lock
        finally:
            close_engine()


class PhaseDriver:
    """Completes phases of `run`. `still_ours` is called before work is assigned."""

    def __init__(self, run: Run, screen: Screen, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._screen = screen
        self._launcher = launcher_for(run)
        self._driver = Driver(run, self._launcher, screen, still_ours)
        self._loads: list[str] = []

    def check(self, phase: ArrayPhase) -> None:
        """Raises SpartaError where the tasks of `phase` could not run, as far as that is known before any starts."""
        self._launcher.check([phase])

    def complete(self, phase: ArrayPhase) -> None:
        """Make every missing row of `phase`."""
        # A complete phase can be read on any machine, even one that could not run it.
        if phase.missing(self._run, 0):
            self.check(phase)
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
