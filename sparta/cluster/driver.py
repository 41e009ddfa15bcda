"""The driver: phase after phase, dealing out what is missing until every key is there, iteration after iteration.

It keeps nothing in memory that matters. Killed at any moment and started again, it waits for tasks that still run and deals out the rest.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from sparta.cluster.attempts import Attempt, AttemptDir
from sparta.cluster.inline import Inline
from sparta.cluster.launcher import Launcher
from sparta.cluster.parallelism import sharded
from sparta.cluster.registry import LAUNCHERS, launcher_named
from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.store.lock import LockLost
from sparta.store.run import Run
from sparta.store.shards import LineCounter

LOG_LINES = 15
SECONDS_BEFORE_A_REASON = 10.0
LOOK_EVERY_SECONDS = 2.0
"""How often a driver that waits, or whose tasks tell of progress, looks whether the run is still its own."""


class View(Protocol):
    """Who watches: a terminal, a log, nobody."""

    def phase_begins(self, t: int, phase: Phase, total: int, done: int) -> None: ...

    def advanced(self, items: float) -> None: ...

    def phase_ends(self) -> None: ...

    def say(self, text: str) -> None: ...


class Driver:
    """Drives `run` with `launcher`.

    `still_ours` raises LockLost where the run's lock was lost. It is called before work is dealt out, and every few seconds while it is done: a
    driver that has lost its run stops, and ends the tasks that are not to outlive it.
    """

    def __init__(self, run: Run, launcher: Launcher, view: View, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._launcher = launcher
        launcher.say = view.say
        self._view = view
        self._still_ours = still_ours
        self._looked = time.monotonic()
        self._launchers: dict[str, Launcher] = {
            name: launcher_named(name, run) for name in LAUNCHERS if name != launcher.name
        }
        self._launchers[launcher.name] = launcher

    def iterate(self, phases: Sequence[Phase], t: int) -> None:
        """Carry out iteration t, from wherever it stands."""
        for phase in phases:
            self.complete(phase, t)

    def complete(self, phase: Phase, t: int) -> None:
        """Every key of `phase` is there afterwards. Raises SpartaError where it is not after `cluster.max_attempts` attempts."""
        run, attempts = self._run, AttemptDir(self._run, phase, t)
        launcher = self._launcher if self._launcher.takes(phase) else self._launchers[Inline.name]
        self.settle(attempts)
        made = 0
        missing = phase.missing(run, t)
        while missing:
            self._still_ours()
            attempt = attempts.deal(sharded(run, phase, t, missing, launcher.tasks(phase)), launcher.name)
            # A task whose driver was killed while starting it may have appeared since; see task.py.
            self.settle(attempts, but=attempt)
            self._watch(launcher, attempts, attempt, start=True)
            made += 1
            missing = phase.missing(run, t)
            if missing:
                self._explain(launcher, attempts, attempt, len(missing), made)

    def settle(self, attempts: AttemptDir, but: Attempt | None = None) -> None:
        """Wait for tasks of earlier launches that still run, wherever they were started, and for jobs that work will yet be dealt to.

        Those of alternatives too: they make the same rows.
        """
        for each in (attempts, *attempts.alternatives):
            self._settle(each, but)

    def _settle(self, attempts: AttemptDir, but: Attempt | None) -> None:
        said = False
        for launcher in self._launchers.values():
            wait = _Wait(launcher, attempts, self._view)
            while launcher.expected(attempts):
                self._look()
                if not said:
                    said = True
                    self._view.say(
                        f"{attempts.phase.title}: jobs of a detached launch are queued, waiting for them"
                    )
                wait.tell()
                time.sleep(launcher.look_seconds)
        for attempt in attempts.all():
            launcher = self._launchers[attempt.cluster]
            if attempt != but and self._running(launcher, attempts, attempt):
                if not said:
                    said = True
                    self._view.say(
                        f"{attempts.phase.title}: tasks of an earlier launch are still running, waiting for them"
                    )
                self._watch(launcher, attempts, attempt)

    def _watch(self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt, start: bool = False) -> None:
        """Start `attempt` if asked, and wait until none of its tasks is left, showing progress."""
        phase, run, view, t = attempts.phase, self._run, self._view, attempts.t
        total = len(phase.work(run, t)) if phase.is_array else attempt.items
        counter = LineCounter(*(part.folder(run, t) for part in phase.parts)) if phase.parts else None
        lines = counter.fresh() if counter else 0
        view.phase_begins(t, phase, total, total - attempt.items if start else lines)
        wait = _Wait(launcher, attempts, view)
        try:
            if start:
                launcher.start(attempts, attempt, self._advanced)
            while self._running(launcher, attempts, attempt):
                wait.tell()
                time.sleep(launcher.look_seconds)
                if counter:
                    view.advanced(counter.fresh())
        except (KeyboardInterrupt, LockLost) as stop:
            launcher.interrupted(attempts, attempt)
            if launcher.survives and isinstance(stop, KeyboardInterrupt):
                view.say(f"{phase.title}: tasks go on without this driver (--cancel would end them)")
            raise
        finally:
            view.phase_ends()

    def _running(self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt) -> bool:
        """Whether tasks of `attempt` run. A launcher that is asked may start those that had no room, which is for the holder of the lock."""
        self._look()
        return bool(launcher.running(attempts, attempt))

    def _look(self) -> None:
        """Raises LockLost where the run's lock was lost; what is known of it is a few seconds old at most."""
        if time.monotonic() - self._looked >= LOOK_EVERY_SECONDS:
            self._still_ours()
            self._looked = time.monotonic()

    def _advanced(self, items: float) -> None:
        """What tasks in this process call as they go on."""
        self._look()
        self._view.advanced(items)

    def _explain(
        self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt, missing: int, made: int
    ) -> None:
        """Stop for an error that trying again cannot mend, or after too many attempts; otherwise say what happens next."""
        records = attempts.records(attempt)
        for record in records:
            if record.outcome != "done" and record.said:
                raise SpartaError(record.said)
        fates = launcher.fates(attempts, attempt)
        reasons = {
            record.error or fates.get(record.shard) or "killed"
            for record in records
            if record.outcome != "done"
        }
        reasons |= {
            fate for shard, fate in fates.items() if shard not in {record.shard for record in records}
        }
        reason = "; ".join(sorted(reasons)) or "no task reported an error"
        where = f"{attempts.phase.name} of iteration {attempts.t}"
        if made >= self._run.recipe.cluster.max_attempts:
            raise SpartaError(
                f"{where}: {missing} of its items are missing after {made} attempts ({reason}); logs are in {attempts.logs}, the last "
                f"lines:\n{last_lines(attempts)}"
            )
        self._view.say(f"{where}: {missing} items are missing ({reason}); dealing them out again")


class _Wait:
    """Tells a view why tasks do not begin, when that has lasted and whenever the reason changes."""

    def __init__(self, launcher: Launcher, attempts: AttemptDir, view: View) -> None:
        self._launcher, self._attempts, self._view = launcher, attempts, view
        self._reason = ""
        self._since = time.monotonic()
        self._told = True

    def tell(self) -> None:
        reason = self._launcher.waiting(self._attempts)
        if reason != self._reason:
            self._reason, self._since, self._told = reason, time.monotonic(), not reason
        if not self._told and time.monotonic() - self._since > SECONDS_BEFORE_A_REASON:
            self._told = True
            self._view.say(f"{self._attempts.phase.title}: {reason}")


def last_lines(attempts: AttemptDir, most: int = LOG_LINES) -> str:
    """The end of the log of the task that failed last; where none says that it failed, of the latest log."""
    if not attempts.logs.is_dir() or not os.access(attempts.logs, os.R_OK | os.X_OK):
        return "(no log that can be read here)"
    logs = _logs_of_failed(attempts) or [path for path in attempts.logs.glob("*.out") if path.is_file()]
    if not logs:
        return "(no log)"
    latest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = latest.read_text(encoding="utf-8", errors="replace").splitlines()[-most:]
    return "\n".join(f"  {line}" for line in lines)


def _logs_of_failed(attempts: AttemptDir) -> list[Path]:
    records = [record for attempt in attempts.all() for record in attempts.records(attempt)]
    logs = (attempts.log(record) for record in records if record.outcome == "failed")
    return [path for path in logs if path is not None and path.is_file()]
