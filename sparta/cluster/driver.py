"""The driver: phase after phase, dealing out what is missing until every key is there, iteration after iteration.

It keeps nothing in memory that matters. Killed at any moment and started again, it waits for tasks that still run and deals out the rest.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sparta.cluster.attempts import Attempt, AttemptDir
from sparta.cluster.base import Launcher
from sparta.cluster.dealing import deal
from sparta.cluster.inline import Inline
from sparta.cluster.launchers import launcher_named
from sparta.errors import SpartaError
from sparta.phases.base import Phase, RowPhase
from sparta.store.run import Run
from sparta.store.shards import LineCounter

POLL_SECONDS = 0.25
LOG_LINES = 15


class View(Protocol):
    """Who watches: a terminal, a log, nobody."""

    def phase_begins(self, t: int, phase: Phase, total: int, done: int) -> None: ...

    def advanced(self, items: float) -> None: ...

    def phase_ends(self) -> None: ...

    def say(self, text: str) -> None: ...


class Driver:
    """Drives `run` with `launcher`. `still_ours` is called before work is dealt out: it raises where the run's lock was lost."""

    def __init__(self, run: Run, launcher: Launcher, view: View, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._launcher = launcher
        self._view = view
        self._still_ours = still_ours

    def iterate(self, phases: Sequence[Phase], t: int) -> None:
        """Carry out iteration t, from wherever it stands."""
        for phase in phases:
            self.complete(phase, t)

    def complete(self, phase: Phase, t: int) -> None:
        """Every key of `phase` is there afterwards. Raises SpartaError where attempts bring nothing new."""
        run, attempts = self._run, AttemptDir(self._run, phase, t)
        launcher = self._launcher if phase.device == "gpu" else Inline(run)
        self._wait_for(attempts, attempts.all(), t)
        barren = 0
        missing = phase.missing(run, t)
        while missing:
            self._still_ours()
            attempt = attempts.deal(deal(missing, launcher.tasks), launcher.name)
            # A task whose driver was killed while starting it may have appeared since; see task.py.
            self._wait_for(attempts, [other for other in attempts.all() if other != attempt], t)
            self._watch(launcher, attempts, attempt, t, start=True)
            left = phase.missing(run, t)
            barren = barren + 1 if len(left) == len(missing) else 0
            missing = left
            if missing:
                self._explain(
                    attempts,
                    attempt,
                    phase,
                    t,
                    len(missing),
                    give_up=barren >= run.recipe.cluster.max_attempts,
                )

    def _wait_for(self, attempts: AttemptDir, earlier: Sequence[Attempt], t: int) -> None:
        """Wait for tasks of an earlier launch that still run, wherever they were started."""
        for attempt in earlier:
            launcher = launcher_named(attempt.cluster, self._run)
            if launcher.running(attempts, attempt):
                self._view.say(
                    f"{attempts.phase.name}: tasks of an earlier launch are still running, waiting for them"
                )
                self._watch(launcher, attempts, attempt, t)

    def _watch(
        self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt, t: int, start: bool = False
    ) -> None:
        """Start `attempt` if asked, and wait until none of its tasks is left, showing progress."""
        phase, run, view = attempts.phase, self._run, self._view
        total = attempt.items if not isinstance(phase, RowPhase) else len(phase.work(run, t))
        folder = phase.folder(run, t) if isinstance(phase, RowPhase) else None
        counter = LineCounter(folder) if folder else None
        lines = counter.fresh() if counter else 0
        view.phase_begins(t, phase, total, total - attempt.items if start else lines)
        try:
            if start:
                launcher.start(attempts, attempt, view.advanced)
            while launcher.running(attempts, attempt):
                time.sleep(POLL_SECONDS)
                if counter:
                    view.advanced(counter.fresh())
        except KeyboardInterrupt:
            launcher.cancel(attempts, attempt)
            raise
        finally:
            view.phase_ends()

    def _explain(
        self, attempts: AttemptDir, attempt: Attempt, phase: Phase, t: int, missing: int, give_up: bool
    ) -> None:
        """Stop for an error that trying again cannot mend, or after too many attempts; otherwise say what happens next."""
        failed = [record for record in attempts.records(attempt) if record.outcome != "done"]
        for record in failed:
            if record.said:
                raise SpartaError(record.said)
        reason = (
            "; ".join(sorted({record.error or "killed" for record in failed})) or "no task reported an error"
        )
        if give_up:
            raise SpartaError(
                f"{phase.name} of iteration {t}: {self._run.recipe.cluster.max_attempts} attempts in a row made nothing of the "
                f"{missing} items that are missing ({reason}); logs are in {attempts.logs}, the last lines:\n{last_lines(attempts)}"
            )
        self._view.say(
            f"{phase.name} of iteration {t}: {missing} items are missing ({reason}); dealing them out again"
        )


def last_lines(attempts: AttemptDir, most: int = LOG_LINES) -> str:
    """The end of the latest log of a phase's tasks."""
    if not attempts.logs.is_dir() or not os.access(attempts.logs, os.R_OK | os.X_OK):
        return "(no log that can be read here)"
    logs = sorted(attempts.logs.glob("*.out"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return "(no log)"
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-most:]
    return "\n".join(f"  {line}" for line in lines)
