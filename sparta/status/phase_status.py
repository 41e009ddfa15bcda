"""One phase of one iteration as `status` sees it: what its tasks have said, and of those on SLURM what squeue says."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord
from sparta.cluster.driver import LOG_LINES
from sparta.cluster.gpu_time import Span, gpu_spans, gpu_time, records_of
from sparta.cluster.slurm.cli import QueueEntry, needs_a_person, number_of
from sparta.cluster.slurm.detached import Chain
from sparta.cluster.slurm.job_ids import job_name
from sparta.cluster.slurm.launcher import reasons_in_words
from sparta.cluster.slurm.queue import Seen
from sparta.phases.base import ArrayPhase, Phase
from sparta.store.manifest import read_manifest
from sparta.store.run import Run
from sparta.store.shards import count_keys

RATE_WINDOW_SECONDS = 1.0
ON_A_NODE = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"))
"""SLURM's states of a task that has a node; in every other living state it waits for one."""

TaskState = Literal["done", "failed", "lost", "running", "queued", "never"]
"""Of a task. lost: gone without a word (killed, cancelled, its node died). never: not in the queue and never started."""


class PhaseStatus(msgspec.Struct, frozen=True):
    """One phase of one iteration. total is None while it cannot be known. rate: items a second of the latest attempt.

    failed: tasks that ended without having done their work, `lost` ones included, which did not say so. requeued: how often tasks were
    started again by SLURM, or are to be. nodes: of tasks that run. waiting: why tasks wait, where that is worth saying. jobs: ids of its
    SLURM jobs. tasks: that the latest attempt was dealt to. loads: of bases, by all attempts. gpu_seconds, gpu_idle: see
    sparta/cluster/gpu_time.py.
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

    @property
    def complete(self) -> bool:
        return self.total is not None and self.done >= self.total


class EndedTask(msgspec.Struct, frozen=True):
    """A task that stopped a run. shard is None where none of the phase's tasks ever started. why: its error, or what SLURM says of its end."""

    phase: str
    t: int
    shard: int | None
    node: str | None
    job: str | None
    why: str


class PhaseView:
    """What is known of one phase of one iteration. driven: a driver lives; without one, tasks of other machines are taken for dead."""

    def __init__(self, run: Run, phase: Phase, t: int, committed: bool, driven: bool, seen: Seen) -> None:
        self.run, self.phase, self.t, self.committed = run, phase, t, committed
        self._driven, self._seen = driven, seen
        self.attempts = AttemptDir(run, phase, t)
        self.found = records_of(self.attempts)
        self.numbers = sorted(
            {attempt.number for attempt, _ in self.found} | set(seen.numbers(self.attempts))
        )
        self.records = {
            (attempt.number, record.shard): record for attempt, records in self.found for record in records
        }
        self.tasks = {number: seen.of(self.attempts, number) for number in self.numbers}
        self.states: dict[tuple[int, int], TaskState] = {}
        for attempt, _ in self.found:
            for shard in range(attempt.shards):
                self.states[attempt.number, shard] = self._state(attempt, shard)
        self._add_undealt()
        self.status = self._status()

    def _add_undealt(self) -> None:
        """Jobs of a detached launch whose keys come with the step before them; there may turn out to be fewer keys than jobs."""
        dealt = {attempt.number for attempt, _ in self.found}
        for number in self.numbers:
            if number in dealt:
                continue
            if self._seen.silence is None:
                for shard, task in self.tasks[number].items():
                    if task.live:
                        self.states[number, shard] = "queued"
            elif not self.committed:
                jobs = self._seen.jobs[self.attempts.folder, number]
                for shard in range(sum(part.count for part in jobs.parts)):
                    self.states[number, shard] = "queued"

    def _state(self, attempt: Attempt, shard: int) -> TaskState:
        record = self.records.get((attempt.number, shard))
        if record is not None and record.outcome in ("done", "failed"):
            return "done" if record.outcome == "done" else "failed"
        if attempt.cluster == "slurm" and not self.committed:
            return self._state_in_slurm(attempt, shard, record)
        if record is None:
            return "never"
        runs = record.alive or (self._driven and not record.killed and not self.committed)
        # Of another machine's task without a driver nobody knows, and a failure is not claimed.
        return "running" if runs else "lost" if record.killed or self.committed else "never"

    def _state_in_slurm(self, attempt: Attempt, shard: int, record: TaskRecord | None) -> TaskState:
        """Of a task that has not said that it ended."""
        latest = attempt.number == self.numbers[-1]
        jobs = self._seen.jobs.get((self.attempts.folder, attempt.number))
        task = self.tasks[attempt.number].get(shard)
        gone: TaskState = "never" if record is None else "lost"
        if task is not None:
            if not task.live:
                return gone
            # A job of several steps runs, but this step's turn may not have come.
            first = jobs is not None and jobs.names[0].partition(".")[0] == job_name(
                self.run, self.attempts, attempt.number
            )
            started = record is not None if not first else True
            return "running" if task.state in ON_A_NODE and started else "queued"
        if self._seen.silence is not None and jobs is not None and latest:
            return "running" if record is not None and record.outcome == "running" else "queued"
        # Between dealing and sbatch's answer, which squeue was asked before.
        submitting = jobs is None or not all(part.job for part in jobs.parts)
        return "queued" if submitting and latest and self._driven and record is None else gone

    def _status(self) -> PhaseStatus:
        run, phase, t = self.run, self.phase, self.t
        counts = {
            state: list(self.states.values()).count(state)
            for state in ("failed", "lost", "running", "queued")
        }
        latest = self._seen.numbers(self.attempts)
        queued = [key for key, state in self.states.items() if state == "queued"]
        pending = [task for number, shard in queued if (task := self.tasks[number].get(shard)) is not None]
        spans = self.spans
        gpu = gpu_time(spans)
        told_now = PhaseStatus(
            phase.name,
            0,
            None,
            running=counts["running"],
            attempts=len(self.found),
            failed=counts["failed"] + counts["lost"],
            queued=counts["queued"],
            requeued=sum(record.requeues for record in self.records.values())
            + sum(self.states[key] == "queued" for key in self.records),
            lost=counts["lost"],
            nodes=sorted(
                {
                    node
                    for key, state in self.states.items()
                    if state == "running" and (node := self._node(key))
                }
            ),
            waiting=_why_wait(pending),
            jobs=[job for number in latest for job in self._seen.jobs[self.attempts.folder, number].ids],
            gpu_seconds=gpu.used,
            gpu_idle=gpu.idle,
            tasks=self.found[-1][0].shards if self.found else 0,
            loads=sum(record.loads for record in self.records.values()),
        )
        if not isinstance(phase, ArrayPhase):
            return msgspec.structs.replace(told_now, done=int(not phase.missing(run, t)), total=1)
        folders = {part.folder(run, t): part.rows for part in phase.parts}
        rows = read_manifest(run.iteration(t)).rows if self.committed else {}
        if all(folder.name in rows for folder in folders):
            count = sum(rows[folder.name].count for folder in folders)
            return msgspec.structs.replace(told_now, done=count, total=count)
        done = sum(count_keys(folder, kind) for folder, kind in folders.items())
        known = t == 0 or run.iteration(t).plan.is_file()
        total = len(phase.work(run, t)) if known else None
        rate = self._rate(done, total) if told_now.running else None
        left = (total - done) / rate if rate and total is not None else None
        return msgspec.structs.replace(told_now, done=done, total=total, rate=rate, seconds_left=left)

    @property
    def spans(self) -> list[list[Span]]:
        """Of its tasks that hold a GPU; those that only the files call running count up to their last row."""
        surely = self._seen.silence is None
        running = [key for key, state in self.states.items() if state == "running" and surely]
        return gpu_spans(self.run, self.attempts, self.found, running)

    def _rate(self, done: int, total: int | None) -> float | None:
        """Since the first task of the latest attempt began: a job may have waited for hours before."""
        if not self.found or total is None:
            return None
        attempt, records = self.found[-1]
        began = min((record.started - record.spent for record in records), default=attempt.submitted)
        fresh = done - (total - attempt.items)
        return fresh / max(RATE_WINDOW_SECONDS, time.time() - began) if fresh > 0 else None

    def _node(self, key: tuple[int, int]) -> str | None:
        task, record = self.tasks[key[0]].get(key[1]), self.records.get(key)
        return (task.node if task else None) or (record.node if record else None)

    def blamed(self, chain: Chain) -> list[tuple[int, int]]:
        """Tasks, by attempt and shard, that ended a detached launch here: those that failed, or were lost, or else never came to start."""
        mine = self._of_chain(chain)
        for state in ("failed", "lost", "never"):
            if found := [key for key in mine if self.states[key] == state]:
                return found
        return []

    def spoiled(self, chain: Chain) -> list[tuple[int, int]]:
        """Tasks that did all their work but whose jobs did not end well, such as cancelled ones: nothing that depends on them starts."""
        done = [key for key in self._of_chain(chain) if self.states[key] == "done"]
        return [key for key in done if self._ended_badly(key)]

    def _of_chain(self, chain: Chain) -> list[tuple[int, int]]:
        """Tasks of the latest attempt, where the chain has submitted it."""
        number = self.numbers[-1] if self.numbers else -1
        jobs = self._seen.jobs.get((self.attempts.folder, number))
        if jobs is None or not set(jobs.names) <= set(chain.names):
            return []
        return sorted(key for key in self.states if key[0] == number)

    def _ended_badly(self, key: tuple[int, int]) -> bool:
        task = self.tasks[key[0]].get(key[1])
        if task is not None:
            return not task.live and task.state != "COMPLETED"
        # The log of one that was requeued also tells of earlier starts.
        return self.records[key].requeues == 0 and self._noted_by_slurm(key) is not None

    def ended(self, key: tuple[int, int], fates: Mapping[str, str]) -> EndedTask:
        """Why a blamed task ended; fates: by job id, what accounting says of those that squeue has forgotten."""
        record, job, node = self.records.get(key), self.job(key), self._node(key)
        task = self.tasks[key[0]].get(key[1])
        state = (task.state if task else fates.get(job or "", "")).lower() or "gone from SLURM's queue"
        said = (record.said or record.error) if record else None
        why = said or (state if record else f"never started, {state}")
        if self.states[key] == "done":
            why = f"{state}, its work done"
        if said is None and task is None and (noted := self._noted_by_slurm(key)):
            why = f"{why}; its log says: {noted}"
        return EndedTask(self.phase.name, self.t, key[1], node, job, why)

    def job(self, key: tuple[int, int]) -> str | None:
        jobs = self._seen.jobs.get((self.attempts.folder, key[0]))
        return jobs.id_of(key[1]) if jobs else None

    def forgotten(self, key: tuple[int, int]) -> bool:
        """Whether neither the task itself nor squeue says how it ended."""
        return self.states[key] != "failed" and key[1] not in self.tasks[key[0]]

    def log(self, key: tuple[int, int]) -> str | None:
        """The last lines of that very task's log; None where it has none that can be read here."""
        return "\n".join(f"  {line}" for line in self._printed(key)[-LOG_LINES:]) or None

    def _noted_by_slurm(self, key: tuple[int, int]) -> str | None:
        """What SLURM itself wrote into a task's log of its end, such as "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT ... ***"."""
        lines = self._printed(key)
        return next(
            (line for line in reversed(lines) if line.startswith(("slurmstepd", "srun: error"))), None
        )

    def _printed(self, key: tuple[int, int]) -> list[str]:
        record, job = self.records.get(key), self.job(key)
        path = self.attempts.log(record) if record else None
        if path is None and job is not None:
            # As submitit calls it: of a job that ended before Python had begun.
            path = self.attempts.logs / f"{number_of(job)}_0_log.out"
        if path is None or not os.access(path, os.R_OK):
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _why_wait(pending: Sequence[QueueEntry]) -> str:
    """SLURM's reasons, and in words those that time alone does not remove."""
    words = {task.reason: said for task in pending if (said := needs_a_person(task.reason))}
    return "; ".join(
        filter(
            None,
            (reasons_in_words(pending), *(f"{reason}: {said}" for reason, said in sorted(words.items()))),
        )
    )
