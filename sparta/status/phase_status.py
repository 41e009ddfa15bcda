"""The status of one phase of one iteration: how much is done, how fast, and what its tasks are doing."""

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from sparta.cluster.gpu_time import gpu_time
from sparta.cluster.slurm.cli import QueueEntry, needs_a_person
from sparta.cluster.slurm.queue import reasons_in_words
from sparta.status.phase_view import PhaseView
from sparta.store.disk import present
from sparta.store.manifest import read_manifest
from sparta.store.shards import done_keys

RATE_WINDOW_SECONDS = 1.0


class PhaseStatus(msgspec.Struct, frozen=True):
    """One phase of one iteration. total: None while it is not known; upto: it is an upper bound.

    rate: items a second of the latest attempt. failed: tasks that ended without finishing, including `lost` ones, which left no final record.
    requeued: how often SLURM restarted tasks, or is about to. nodes: of running tasks. waiting: why tasks wait, if worth showing. jobs: ids of its
    SLURM jobs. tasks: of the latest attempt. loads: of bases, by all attempts. gpu_seconds, gpu_idle: see sparta/cluster/gpu_time.py. is_array:
    whether it is sharded into tasks. has_column: whether the table shows it. notes: what its tasks do otherwise than the recipe asks.
    """

    name: str
    done: int
    total: int | None
    running: int = 0
    attempts: int = 0
    failed: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    queued: int = 0
    requeued: int = 0
    lost: int = 0
    nodes: list[str] = []
    waiting: str = ""
    jobs: list[str] = []
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None
    tasks: int = 0
    loads: int = 0
    is_array: bool = True
    has_column: bool = True
    upto: bool = False
    notes: list[str] = []

    @property
    def complete(self) -> bool:
        return self.total is not None and self.done >= self.total


def phase_status(view: PhaseView) -> PhaseStatus:
    """The status of the phase of `view`."""
    running, queued, lost = view.in_state("running"), view.in_state("queued"), view.in_state("lost")
    done, total, rate, final = _progress(view)
    entries = (view.queue_entry(key) for key in queued)
    gpu = gpu_time(view.spans)
    return PhaseStatus(
        view.phase.name,
        done,
        total,
        running=len(running),
        attempts=len(view.found),
        failed=len(view.in_state("failed")) + len(lost),
        rate=rate if running else None,
        seconds_left=(total - done) / rate if running and rate and total is not None else None,
        queued=len(queued),
        requeued=_requeues(view),
        lost=len(lost),
        nodes=sorted({node for key in running if (node := view.node(key))}),
        waiting=_why_wait([entry for entry in entries if entry is not None]),
        jobs=[job for number in view.submitted if (jobs := view.jobs(number)) for job in jobs.ids],
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
        tasks=view.found[-1][0].shards if view.found else 0,
        loads=sum(record.loads for record in view.records.values()),
        is_array=view.phase.is_array,
        has_column=view.phase.has_column,
        upto=not final,
        notes=sorted({note for record in view.records.values() for note in record.notes}),
    )


class _Progress(NamedTuple):
    """Items done, items in total (None: not known yet), items a second, and whether the total is final or an upper bound."""

    done: int
    total: int | None
    rate: float | None = None
    final: bool = True


def _progress(view: PhaseView) -> _Progress:
    run, phase, t = view.run, view.phase, view.t
    if not phase.is_array:
        return _Progress(int(not phase.missing(run, t)), 1)
    folders = {part.folder(run, t): part.rows for part in phase.parts}
    committed = read_manifest(run.iteration(t)).rows if view.committed else {}
    if all(folder.name in committed for folder in folders):
        count = sum(committed[folder.name].count for folder in folders)
        return _Progress(count, count)
    found = set[str]().union(*(done_keys(folder, kind) for folder, kind in folders.items()))
    if t > 0 and not present(run.iteration(t).plan):
        return _Progress(len(found), None)
    needed = {item.key for item in phase.work(run, t)}
    done = len(found & needed)
    return _Progress(done, len(needed), _rate(view, done, needed), phase.final(run, t))


def _rate(view: PhaseView, done: int, needed: Collection[str]) -> float | None:
    """Items a second since the first task of the latest attempt began; the time its job waited in the queue does not count."""
    if not view.found:
        return None
    attempt, records = view.found[-1]
    began = min((record.started - record.spent for record in records), default=attempt.submitted)
    shards = range(attempt.shards)
    assigned = {key for shard in shards for key in view.attempts.keys(attempt.number, shard)}
    made = done - sum(key not in assigned for key in needed)
    return made / max(RATE_WINDOW_SECONDS, time.time() - began) if made > 0 else None


def _requeues(view: PhaseView) -> int:
    """How often SLURM restarted tasks, or is about to."""
    waiting_again = sum(view.states[key] == "queued" for key in view.records)
    return waiting_again + sum(record.requeues for record in view.records.values())


def _why_wait(pending: Sequence[QueueEntry]) -> str:
    """SLURM's reasons, with an explanation of those that waiting alone does not resolve."""
    explained = {entry.reason: why for entry in pending if (why := needs_a_person(entry.reason))}
    blocking = (f"{reason}: {why}" for reason, why in sorted(explained.items()))
    return "; ".join(filter(None, (reasons_in_words(pending), *blocking)))
