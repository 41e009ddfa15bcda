"""The cost of the phases of an iteration, computed from its attempts for stats.json. Measurements only: no hash covers them, no result depends on them.

GPU-seconds used: of tasks that hold a GPU (their record names it), from start to end, including earlier starts of requeued tasks. Available to
a phase: the most GPUs that tasks of one attempt held at the same time, multiplied by the time from the first task's start to the last task's end. The
idle share of a phase is the unused part of that: waiting in SLURM's queue, and stragglers. The account of a whole iteration, against all GPUs that
it might have held, is in sparta/cluster/account.py.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord
from sparta.engines.stopwatch import SET_UP, START, TRAIN
from sparta.phases.base import Phase
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.store.shards import seconds_of_rows, shard_file
from sparta.store.stats import PhaseStats


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


def records_of(attempts: AttemptDir) -> list[tuple[Attempt, list[TaskRecord]]]:
    """Every attempt with the records of its tasks."""
    return [(attempt, attempts.records(attempt)) for attempt in attempts.all()]


def cost_of(run: Run, attempts: AttemptDir) -> PhaseStats:
    """Cost of one phase so far. A killed task counts up to its last sign of life."""
    items = loads = tasks = 0
    seconds = busy = load_seconds = cost = work_seconds = 0.0
    found = records_of(attempts)
    parts = defaultdict[str, float](float)
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
    for time_of_task in task_times(run, attempts, found):
        for part, spent in time_of_task.parts.items():
            parts[part] += spent
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
        parts=dict(parts),
    )


class TaskTime(NamedTuple):
    """The time of one task: its span, and the seconds of each part, which add up to it."""

    span: Span
    parts: Mapping[str, float]


def task_times(
    run: Run,
    attempts: AttemptDir,
    found: Iterable[tuple[Attempt, Sequence[TaskRecord]]],
    running: Collection[tuple[int, int]] = (),
) -> list[TaskTime]:
    """The times of all tasks of a phase. running: as in `gpu_spans`."""
    times = []
    shares = _shares(run, attempts, {attempt.number for attempt, _ in found})
    for attempt, records in found:
        for record in records:
            runs = (attempt.number, record.shard) in running
            span = span_of(run, attempts, attempt, record, runs)
            times.append(TaskTime(span, _parts_of(attempts.phase, record, span, shares)))
    return times


def _parts_of(phase: Phase, record: TaskRecord, span: Span, shares: Mapping[str, float]) -> dict[str, float]:
    """Seconds by part of a task. shares: of the parts that the time of the phase itself counts as."""
    if record.doing:
        parts = record.parts_until(span.ended, phase.time_part)
    else:
        # Earlier versions recorded only the loads of tasks that were done.
        loading = min(record.load_seconds, span.seconds)
        parts = {START if phase.runs_an_engine else SET_UP: loading} if loading else {}
        parts[TRAIN if phase.trains else phase.time_part] = span.seconds - loading
    if shares and (own := parts.pop(phase.time_part, 0.0)):
        for part, share in shares.items():
            parts[part] = parts.get(part, 0.0) + own * share
    return parts


def _shares(run: Run, attempts: AttemptDir, numbers: Collection[int]) -> dict[str, float]:
    """How the time of a phase that makes several kinds of rows is shared between them: as the seconds of the rows that its attempts made.

    Until there are such rows, all of it counts as the first kind, which the others depend on.
    """
    kinds = attempts.phase.shares_time
    seconds = {part: seconds_of_rows(rows.folder(run, attempts.t), numbers) for part, rows in kinds.items()}
    total = sum(seconds.values())
    if not total:
        return dict.fromkeys(list(kinds)[:1], 1.0)
    return {part: each / total for part, each in seconds.items()}


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
    there = max(most_at_once(array) for array in arrays) * wall
    return GpuTime(used, max(0.0, 1 - used / there) if there > 0 else None)


def span_of(
    run: Run, attempts: AttemptDir, attempt: Attempt, record: TaskRecord, running: bool = False
) -> Span:
    """The time the task of `record` has run: until now if it is running, until its last sign of life if it did not record its end."""
    if running:
        ended = time.time()
    elif record.ended is not None:
        ended = record.ended
    else:
        ended = last_sign_of(run, attempts, attempt.number, record)
    # A task may see more GPUs than it works on: all of a machine, or of a node that SLURM gives away whole.
    gpus = min(len(record.gpus.split(",")) if record.gpus else 0, attempts.phase.gpus(run.recipe))
    return Span(record.started - record.spent, max(record.started, ended), gpus)


def most_at_once(spans: Sequence[Span], tasks: bool = False) -> int:
    """The most GPUs held at the same time; or of the tasks, the most that ran at the same time."""
    # At the same moment, ends sort before starts.
    changes = sorted(
        change
        for span in spans
        for weight in [1 if tasks else span.gpus]
        for change in ((span.began, weight), (span.ended, -weight))
    )
    most = held = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def last_sign_of(run: Run, attempts: AttemptDir, number: int, record: TaskRecord) -> float:
    """The last sign of life of a task, in seconds since 1970: when it wrote its last row, or touched its record."""
    paths = (
        attempts.record_file(number, record.shard),
        *(
            shard_file(part.folder(run, attempts.t), number, record.shard, record.requeues)
            for part in attempts.phase.parts
        ),
    )
    return max((path.stat().st_mtime for path in paths if present(path)), default=0.0)
