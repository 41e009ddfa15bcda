"""The cost of an iteration, computed from its attempts for stats.json. Measurements only: no hash covers them, no result depends on them.

GPU-seconds used: of tasks that hold a GPU (their record names it), from start to end, including earlier starts of requeued tasks. Available:
the most GPUs that tasks of one attempt held at the same time, multiplied by the time from the first task's start to the last task's end. The
idle share is the unused part of that: waiting in SLURM's queue, stragglers and steps between phases. Time before the first task does not
count, because no GPU was held then.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord, with_alternatives
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.store.shards import shard_file
from sparta.store.stats import IterationStats, PhaseStats


class Span(NamedTuple):
    """The time a task ran, in seconds since 1970. Earlier starts of a requeued task count as if they came right before its last start."""

    began: float
    ended: float
    gpus: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class GpuTime(NamedTuple):
    """used: GPU-seconds. idle: unused share of the available GPU-seconds, from 0 to 1; None where no task held a GPU."""

    used: float
    idle: float | None

    @property
    def there(self) -> float:
        """Available GPU-seconds, used or idle."""
        return 0.0 if self.idle is None or self.idle >= 1 else self.used / (1 - self.idle)


def measure(run: Run, phases: Sequence[Phase], t: int) -> None:
    """Add the cost of its phases, and of alternatives that did part of the work, to stats.json of iteration t."""
    path = run.iteration(t).stats
    stats = files.read_measured(path, IterationStats)
    if stats is None:
        return
    places = {phase.name: AttemptDir(run, phase, t) for phase in with_alternatives(run, phases, t)}
    costs = {name: cost_of(run, attempts) for name, attempts in places.items()}
    gpu = gpu_time(
        span for attempts in places.values() for span in gpu_spans(run, attempts, records_of(attempts))
    )
    files.write_json(
        path, msgspec.structs.replace(stats, phases=costs, gpu_seconds=gpu.used, gpu_idle=gpu.idle)
    )


def records_of(attempts: AttemptDir) -> list[tuple[Attempt, list[TaskRecord]]]:
    """Every attempt with the records of its tasks."""
    return [(attempt, attempts.records(attempt)) for attempt in attempts.all()]


def cost_of(run: Run, attempts: AttemptDir) -> PhaseStats:
    """Cost of one phase so far. A killed task counts up to its last row."""
    items = loads = tasks = 0
    seconds = busy = load_seconds = cost = work_seconds = 0.0
    found = records_of(attempts)
    for attempt, records in found:
        ends = [record.ended for record in records if record.ended is not None]
        seconds += max(ends, default=attempt.submitted) - attempt.submitted
        busy += sum(span_of(run, attempts, attempt, record).seconds for record in records)
        loads += sum(record.loads for record in records)
        load_seconds += sum(record.load_seconds for record in records)
        if attempt.costs:
            done = [record for record in records if record.outcome == "done"]
            cost += sum(attempt.costs[record.shard] for record in done)
            work_seconds += sum(
                max(0.0, span_of(run, attempts, attempt, record).seconds - record.load_seconds)
                for record in done
            )
        tasks += len(records)
        items += attempt.items
    gpu = gpu_time(gpu_spans(run, attempts, found))
    return PhaseStats(
        items=items,
        seconds=seconds,
        busy=busy,
        loads=loads,
        tasks=tasks,
        attempts=len(found),
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
        load_seconds=load_seconds,
        cost=cost,
        work_seconds=work_seconds,
    )


def gpu_spans(
    run: Run,
    attempts: AttemptDir,
    found: Iterable[tuple[Attempt, Sequence[TaskRecord]]],
    running: Collection[tuple[int, int]] = (),
) -> list[list[Span]]:
    """Spans of the tasks that hold a GPU, by attempt; none for a phase without GPUs. running: attempt number and shard of tasks that still run."""
    if attempts.phase.runs_on(run.recipe) != "gpu":
        return []
    return [
        [
            span_of(run, attempts, attempt, record, (attempt.number, record.shard) in running)
            for record in records
            if record.gpus
        ]
        for attempt, records in found
    ]


def gpu_time(spans: Iterable[Sequence[Span]]) -> GpuTime:
    """GPU-seconds used and the idle share, as defined at the top of this file. spans: by attempt."""
    arrays = [array for array in spans if array]
    every = [span for array in arrays for span in array]
    used = sum(span.gpus * span.seconds for span in every)
    if not every:
        return GpuTime(0.0, None)
    wall = max(span.ended for span in every) - min(span.began for span in every)
    there = max(map(_at_once, arrays)) * wall
    return GpuTime(used, max(0.0, 1 - used / there) if there > 0 else None)


def span_of(
    run: Run, attempts: AttemptDir, attempt: Attempt, record: TaskRecord, running: bool = False
) -> Span:
    """The time the task of `record` has run: until now if it is running, until its last row if it did not record its end."""
    if running:
        ended = time.time()
    elif record.ended is not None:
        ended = record.ended
    else:
        ended = last_row_time(run, attempts, attempt.number, record)
    gpus = len(record.gpus.split(",")) if record.gpus else 0
    return Span(record.started - record.spent, max(record.started, ended), gpus)


def _at_once(spans: Sequence[Span]) -> int:
    """The most GPUs held at the same time."""
    # At the same moment, ends sort before starts.
    changes = sorted(
        [(span.began, span.gpus) for span in spans] + [(span.ended, -span.gpus) for span in spans]
    )
    most = held = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def last_row_time(run: Run, attempts: AttemptDir, number: int, record: TaskRecord) -> float:
    """When a task wrote its last row, in seconds since 1970; 0 where there is none."""
    paths = (
        shard_file(part.folder(run, attempts.t), number, record.shard, record.requeues)
        for part in attempts.phase.parts
    )
    return max((path.stat().st_mtime for path in paths if present(path)), default=0.0)
