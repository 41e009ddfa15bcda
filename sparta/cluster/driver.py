"""The driver: completes phase after phase, iteration after iteration, by assigning missing keys to tasks until none is missing.

It keeps no state in memory. Killed at any moment and started again, it waits for tasks that still run and assigns the rest.
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
SECONDS_BEFORE_REASON = 10.0
CHECK_EVERY_SECONDS = 2.0
"""How often a driver that waits or gets progress checks that it still holds the run's lock."""


class View(Protocol):
    """Displays progress: on a terminal, in a log, or nowhere."""

    def phase_begins(self, t: int, phase: Phase, total: int, done: int) -> None: ...

    def advanced(self, items: float) -> None: ...

    def phase_ends(self) -> None: ...

    def say(self, text: str) -> None: ...


class Driver:
    """Drives `run` with `launcher`.

    `still_ours` raises LockLost where the run's lock was lost. It is called before work is assigned and every few seconds after that: a driver that
    has lost its run stops, and ends the tasks that must not outlive it.
    """

    def __init__(self, run: Run, launcher: Launcher, view: View, still_ours: Callable[[], None]) -> None:
        self._run = run
        self._launcher = launcher
        launcher.say = view.say
        self._view = view
        self._still_ours = still_ours
        self._checked = time.monotonic()
        self._launchers: dict[str, Launcher] = {
            name: launcher_named(name, run) for name in LAUNCHERS if name != launcher.name
        }
        self._launchers[launcher.name] = launcher

    def iterate(self, phases: Sequence[Phase], t: int) -> None:
        """Complete iteration t, whatever part of it is done."""
        for phase in phases:
            self.complete(phase, t)

    def complete(self, phase: Phase, t: int) -> None:
        """Make every missing key of `phase`. Raises SpartaError where keys are missing after `cluster.max_attempts` attempts."""
        run, attempts = self._run, AttemptDir(self._run, phase, t)
        launcher = self._launcher if self._launcher.takes(phase) else self._launchers[Inline.name]
        self.settle(attempts)
        made, began = 0, time.time()
        missing = phase.missing(run, t)
        while missing:
            self._still_ours()
            attempt = attempts.assign(
                sharded(run, phase, t, missing, launcher.tasks(phase)),
                launcher.name,
                began=began,
                at_once=launcher.at_once(phase),
                gpus=launcher.gpus(phase),
            )
            # A task whose driver was killed while starting it may only now show up; see task.py.
            self.settle(attempts, but=attempt)
            self._watch(launcher, attempts, attempt, start=True)
            made += 1
            began = time.time()
            missing = phase.missing(run, t)
            if missing:
                self._explain(launcher, attempts, attempt, len(missing), made)

    def settle(self, attempts: AttemptDir, but: Attempt | None = None) -> None:
        """Wait for tasks of earlier launches that still run, on any launcher, and for queued jobs whose keys are not assigned yet.

        Tasks of alternatives count too: they make the same rows.
        """
        for each in (attempts, *attempts.alternatives):
            self._settle(each, but)

    def _settle(self, attempts: AttemptDir, but: Attempt | None) -> None:
        announced = False
        for launcher in self._launchers.values():
            wait = _Wait(launcher, attempts, self._view)
            while launcher.has_unassigned_jobs(attempts):
                self._check_lock()
                if not announced:
                    announced = True
                    self._view.say(
                        f"{attempts.phase.title}: jobs of a detached launch are queued, waiting for them"
                    )
                wait.report()
                time.sleep(launcher.poll_seconds)
        for attempt in attempts.all():
            launcher = self._launchers[attempt.cluster]
            if attempt != but and self._running(launcher, attempts, attempt):
                if not announced:
                    announced = True
                    self._view.say(
                        f"{attempts.phase.title}: tasks of an earlier launch are still running, waiting for them"
                    )
                self._watch(launcher, attempts, attempt)

    def _watch(self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt, start: bool = False) -> None:
        """Wait until no task of `attempt` is left, showing progress. start: start its tasks first."""
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
                wait.report()
                time.sleep(launcher.poll_seconds)
                if counter:
                    view.advanced(counter.fresh())
        except (KeyboardInterrupt, LockLost) as stop:
            launcher.interrupted(attempts, attempt)
            if launcher.survives and isinstance(stop, KeyboardInterrupt):
                view.say(f"{phase.title}: tasks continue without this driver (--cancel ends them)")
            raise
        finally:
            view.phase_ends()

    def _running(self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt) -> bool:
        """Whether tasks of `attempt` run. The call may start waiting tasks, which only the holder of the lock may do."""
        self._check_lock()
        return bool(launcher.running(attempts, attempt))

    def _check_lock(self) -> None:
        """Raises LockLost where the run's lock was lost, up to a few seconds ago."""
        if time.monotonic() - self._checked >= CHECK_EVERY_SECONDS:
            self._still_ours()
            self._checked = time.monotonic()

    def _advanced(self, items: float) -> None:
        """The progress callback of tasks in this process."""
        self._check_lock()
        self._view.advanced(items)

    def _explain(
        self, launcher: Launcher, attempts: AttemptDir, attempt: Attempt, missing: int, made: int
    ) -> None:
        """Stop after a non-retryable error or too many attempts; otherwise report the reason and the next attempt."""
        records = attempts.records(attempt)
        for record in records:
            if record.outcome != "done" and record.said:
                raise SpartaError(record.said)
        end_states = launcher.end_states(attempts, attempt)
        reasons = {
            record.error or end_states.get(record.shard) or "killed"
            for record in records
            if record.outcome != "done"
        }
        reasons |= {
            state for shard, state in end_states.items() if shard not in {record.shard for record in records}
        }
        reason = "; ".join(sorted(reasons)) or "no task reported an error"
        where = f"{attempts.phase.name} of iteration {attempts.t}"
        if made >= self._run.recipe.cluster.max_attempts:
            raise SpartaError(
                f"{where}: {missing} of its items are missing after {made} attempts ({reason}); logs are in {attempts.logs}, the last "
                f"lines:\n{last_lines(attempts)}"
            )
        self._view.say(f"{where}: {missing} items are missing ({reason}); assigning them again")


class _Wait:
    """Reports why tasks do not start: after some seconds of waiting, and again when the reason changes."""

    def __init__(self, launcher: Launcher, attempts: AttemptDir, view: View) -> None:
        self._launcher, self._attempts, self._view = launcher, attempts, view
        self._reason = ""
        self._since = time.monotonic()
        self._reported = True

    def report(self) -> None:
        reason = self._launcher.waiting(self._attempts)
        if reason != self._reason:
            self._reason, self._since, self._reported = reason, time.monotonic(), not reason
        if not self._reported and time.monotonic() - self._since > SECONDS_BEFORE_REASON:
            self._reported = True
            self._view.say(f"{self._attempts.phase.title}: {reason}")


def last_lines(attempts: AttemptDir, most: int = LOG_LINES) -> str:
    """The last lines of the log of the task that failed last; where no task recorded a failure, of the newest log."""
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
