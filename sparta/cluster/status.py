"""Where a run stands, read from its state alone: also while it runs, after a crash, and for somebody else's run.

Nothing is written and no engine is loaded.
"""

import time
from typing import Literal

import msgspec

from sparta.arena.reputation import Standing
from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import last_lines
from sparta.cluster.estimate import seconds_an_iteration
from sparta.cluster.failure import Failure, last_failure
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases import standings
from sparta.phases.base import Phase, RowPhase
from sparta.store.lock import holder
from sparta.store.manifest import read_manifest
from sparta.store.run import Run
from sparta.store.shards import count_keys

RATE_WINDOW_SECONDS = 1.0
EXIT_CODES = {"done": 0, "failed": 1, "running": 3, "stopped": 3}


class PhaseStatus(msgspec.Struct, frozen=True):
    """One phase of one iteration. total is None while it cannot be known. rate: items a second of the latest attempt."""

    name: str
    done: int
    total: int | None
    running: int = 0
    attempts: int = 0
    failed: int = 0
    rate: float | None = None
    seconds_left: float | None = None


class IterationStatus(msgspec.Struct, frozen=True):
    t: int
    committed: bool
    phases: list[PhaseStatus]


class Status(msgspec.Struct, frozen=True):
    """A run. state: done, failed (the last launch ended with an error), running (a driver holds the lock) or stopped."""

    run_id: str
    recipe: str
    state: Literal["done", "failed", "running", "stopped"]
    iterations: list[IterationStatus]
    planned: int
    driver: str | None
    failure: Failure | None
    log: str | None
    seconds_left: float | None
    standing: dict[str, Standing]
    standing_after: int

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]


def status_of(run: Run) -> Status:
    """The status of `run`."""
    phases = phases_of(run.recipe.method)
    committed = set(run.state.committed())
    started = [t for t in run.state.iterations() if t > 0]
    now = holder(run.state)
    driver = str(now.claim) if now and now.alive else None
    failure = None if driver else last_failure(run)
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no committed iteration, not even iter_00: restore it from a copy"
        )
    last = max(committed)
    state: Literal["done", "failed", "running", "stopped"] = "stopped"
    if driver:
        state = "running"
    elif last >= run.recipe.iterations:
        state = "done"
    elif failure:
        state = "failed"
    each = seconds_an_iteration(run)
    iterations = [_iteration(run, phases, t, t in committed, driver is not None) for t in started]
    return Status(
        run_id=run.info.run_id,
        recipe=run.recipe.name,
        state=state,
        iterations=iterations,
        planned=run.recipe.iterations,
        driver=driver,
        failure=failure if state == "failed" else None,
        log=_failing_log(run, phases, started) if state == "failed" else None,
        seconds_left=None if each is None or state == "done" else each * (run.recipe.iterations - last),
        standing=standings.at_end(run, last),
        standing_after=last,
    )


def _iteration(run: Run, phases: tuple[Phase, ...], t: int, committed: bool, driven: bool) -> IterationStatus:
    rows = read_manifest(run.iteration(t)).rows if committed else {}
    return IterationStatus(
        t,
        committed,
        [
            _phase(run, phase, t, {name: entry.count for name, entry in rows.items()}, driven)
            for phase in phases
        ],
    )


def _phase(run: Run, phase: Phase, t: int, committed_rows: dict[str, int], driven: bool) -> PhaseStatus:
    """driven: a driver lives; without one, tasks of other machines are taken for dead."""
    attempts = AttemptDir(run, phase, t)
    found = attempts.all()
    records = [record for attempt in found for record in attempts.records(attempt)]
    failed = sum(record.outcome == "failed" or record.killed for record in records)
    if not isinstance(phase, RowPhase):
        done = not phase.missing(run, t)
        return PhaseStatus(phase.name, int(done), 1, attempts=len(found), failed=failed)
    folder = phase.folder(run, t)
    if folder.name in committed_rows:
        count = committed_rows[folder.name]
        return PhaseStatus(phase.name, count, count, attempts=len(found), failed=failed)
    done_rows = count_keys(folder, phase.rows)
    total = len(phase.work(run, t)) if run.iteration(t).plan.is_file() else None
    running = sum(
        record.alive or (driven and record.outcome == "running" and not record.killed) for record in records
    )
    rate = None
    if found and total is not None:
        elapsed = max(RATE_WINDOW_SECONDS, time.time() - found[-1].submitted)
        fresh = done_rows - (total - found[-1].items)
        rate = fresh / elapsed if running and fresh > 0 else None
    left = (total - done_rows) / rate if rate and total is not None else None
    return PhaseStatus(phase.name, done_rows, total, running, len(found), failed, rate, left)


def _failing_log(run: Run, phases: tuple[Phase, ...], started: list[int]) -> str | None:
    """The last lines of the log of the phase that failed last."""
    for t in reversed(started):
        for phase in reversed(phases):
            attempts = AttemptDir(run, phase, t)
            if any(
                record.outcome == "failed" or record.killed
                for attempt in attempts.all()
                for record in attempts.records(attempt)
            ):
                return last_lines(attempts) if attempts.logs.is_dir() else None
    return None
