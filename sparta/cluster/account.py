"""Where the time of an iteration went: GPU-seconds by part, and those in which a GPU had nothing to do. Measurements only.

Of all tasks, also of those that were killed: their time was spent. A task says what it spends its time on (sparta/engines/stopwatch.py); where one
phase generates and judges at the same time, its rows say how to share the time between both.

The whole is the GPUs that the launch might have held (on SLURM those of the profile, elsewhere those of the machine) times the time by the clock:
from the start of the first task to the end of the last one, without the time in which no launch worked on the iteration. What no part accounts for
is idle: GPUs without a task, waiting in SLURM's queue, stragglers, and steps between phases. Where no task holds a GPU, the same is counted for
tasks: those that run, of those that might run at the same time.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord, with_alternatives
from sparta.cluster.gpu_time import Span, TaskTime, cost_of, most_at_once, records_of, span_of, task_times
from sparta.engines.stopwatch import START, TRAIN
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TimeAccount


class Tasks(NamedTuple):
    """The tasks of one phase. running: attempt number and shard of those that still run."""

    attempts: AttemptDir
    found: Sequence[tuple[Attempt, Sequence[TaskRecord]]]
    running: Collection[tuple[int, int]] = ()


def measure(run: Run, phases: Sequence[Phase], t: int) -> None:
    """Add the cost of its phases, and of alternatives that did part of the work, to stats.json of iteration t."""
    path = run.iteration(t).stats
    stats = files.read_measured(path, IterationStats)
    if stats is None:
        return
    places = {phase.name: AttemptDir(run, phase, t) for phase in with_alternatives(run, phases, t)}
    costs = {name: cost_of(run, attempts) for name, attempts in places.items()}
    account = account_of(run, [Tasks(attempts, records_of(attempts)) for attempts in places.values()])
    on_gpus = account is not None and account.unit == "GPU"
    files.write_json(
        path,
        msgspec.structs.replace(
            stats,
            phases=costs,
            gpu_seconds=account.used if account and on_gpus else 0.0,
            gpu_idle=account.idle_share if account and on_gpus else None,
            account=account,
        ),
    )


def account_of(run: Run, phases: Sequence[Tasks]) -> TimeAccount | None:
    """The account of an iteration with these phases, up to now, in their order; None before its first task."""
    times = [time for tasks in phases for time in task_times(run, tasks.attempts, tasks.found, tasks.running)]
    if not times:
        return None
    every = [time.span for time in times]
    on_gpus = any(span.gpus for span in every)
    counted = [time for time in times if time.span.gpus or not on_gpus]
    attempts = [attempt for tasks in phases for attempt, records in tasks.found if records]
    known = max(attempt.gpus if on_gpus else attempt.at_once for attempt in attempts)
    places = max(known, most_at_once([time.span for time in counted], tasks=not on_gpus))
    seconds = _by_the_clock(run, phases, every)
    parts = _added(counted, on_gpus)
    idle = max(0.0, places * seconds - sum(parts.values()))
    account = TimeAccount("GPU" if on_gpus else "task", places, seconds, parts, idle)
    return in_order(account, [tasks.attempts.phase for tasks in phases])


def in_order(account: TimeAccount, phases: Sequence[Phase]) -> TimeAccount:
    """`account` with its parts in the order of `phases`: starts first, small steps last. A file has them by name."""
    names = [START]
    for phase in sorted(phases, key=lambda phase: not phase.is_array):
        names += [*phase.shares_time] or [phase.time_part]
        names += [TRAIN] * phase.trains
    rank = {name: place for place, name in reversed(list(enumerate(names)))}

    def place(part: str) -> int:
        return rank[START] if part.startswith(f"{START} ") else rank.get(part, len(names))

    return msgspec.structs.replace(
        account, parts={part: account.parts[part] for part in sorted(account.parts, key=place)}
    )


def _added(times: Iterable[TaskTime], on_gpus: bool) -> dict[str, float]:
    parts = defaultdict[str, float](float)
    for span, of_task in times:
        for part, seconds in of_task.items():
            parts[part] += seconds * (span.gpus if on_gpus else 1)
    return {part: seconds for part, seconds in parts.items() if seconds > 0}


def _by_the_clock(run: Run, phases: Sequence[Tasks], spans: Sequence[Span]) -> float:
    """Seconds in which a launch worked on the iteration, from the start of its first task: the union of its attempts, waiting included."""
    first = min(span.began for span in spans)
    intervals = [(span.began, span.ended) for span in spans]
    for tasks in phases:
        for attempt, records in tasks.found:
            ends = [
                span_of(
                    run, tasks.attempts, attempt, record, (attempt.number, record.shard) in tasks.running
                ).ended
                for record in records
            ]
            if ends:
                intervals.append((max(first, attempt.began or attempt.submitted), max(ends)))
    total, upto = 0.0, first
    for began, ended in sorted(intervals):
        total += max(0.0, ended - max(began, upto))
        upto = max(upto, ended)
    return total
