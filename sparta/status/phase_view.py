"""The state of each task of one phase of one iteration, from the tasks' records and from squeue."""

import os
from typing import Literal

from sparta.cluster.account import Tasks
from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord
from sparta.cluster.gpu_time import Span, gpu_spans, records_of
from sparta.cluster.slurm.cli import QueueEntry, number_of
from sparta.cluster.slurm.job_ids import Jobs, job_name
from sparta.cluster.slurm.queue import QueueSnapshot
from sparta.phases.base import Phase
from sparta.store.run import Run

ON_A_NODE = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"))
"""SLURM's states of a task that has a node; in every other live state it waits for one."""

TaskState = Literal["done", "failed", "lost", "running", "queued", "never"]
"""lost: gone without a final record (killed, cancelled, its node died). never: not in the queue and never started."""
TaskKey = tuple[int, int]
"""A task: the number of its attempt, and its shard."""


class PhaseView:
    """The tasks of one phase of one iteration. driven: a driver is running; without one, tasks of other machines are assumed dead."""

    def __init__(
        self, run: Run, phase: Phase, t: int, committed: bool, driven: bool, snapshot: QueueSnapshot
    ) -> None:
        self.run, self.phase, self.t, self.committed = run, phase, t, committed
        self._driven, self._snapshot = driven, snapshot
        self.attempts = AttemptDir(run, phase, t)
        self.found = records_of(self.attempts)
        """Every attempt whose keys were assigned, with the records of its tasks."""
        self.submitted = snapshot.numbers(self.attempts)
        """The attempts that jobs were submitted for."""
        self.numbers = sorted({attempt.number for attempt, _ in self.found} | set(self.submitted))
        self.records: dict[TaskKey, TaskRecord] = {
            (attempt.number, record.shard): record for attempt, records in self.found for record in records
        }
        self._queue = {number: snapshot.of(self.attempts, number) for number in self.numbers}
        self.states: dict[TaskKey, TaskState] = {
            (attempt.number, shard): self._state(attempt, shard)
            for attempt, _ in self.found
            for shard in range(attempt.shards)
        }
        self.states |= dict.fromkeys(self._waiting_for_keys(), "queued")

    def in_state(self, state: TaskState) -> list[TaskKey]:
        """The tasks in that state."""
        return [key for key, each in self.states.items() if each == state]

    def queue_entry(self, key: TaskKey) -> QueueEntry | None:
        """squeue's entry for a task; None where it has none."""
        return self._queue[key[0]].get(key[1])

    def jobs(self, number: int) -> Jobs | None:
        """The SLURM jobs of an attempt."""
        return self._snapshot.jobs.get((self.attempts.folder, number))

    def job(self, key: TaskKey) -> str | None:
        """The id of a task's job."""
        jobs = self.jobs(key[0])
        return jobs.id_of(key[1]) if jobs else None

    def node(self, key: TaskKey) -> str | None:
        """The node on which a task runs or ran."""
        entry, record = self.queue_entry(key), self.records.get(key)
        return (entry.node if entry else None) or (record.node if record else None)

    @property
    def tasks(self) -> Tasks:
        """Its tasks for the account. Where SLURM does not answer, running ones count up to their last sign of life."""
        return Tasks(
            self.attempts, self.found, self.in_state("running") if self._snapshot.silence is None else []
        )

    @property
    def spans(self) -> list[list[Span]]:
        """The spans of tasks that hold a GPU."""
        return gpu_spans(self.run, *self.tasks)

    def log_lines(self, key: TaskKey) -> list[str]:
        """The lines of a task's log; none where no log can be read here."""
        record, job = self.records.get(key), self.job(key)
        path = self.attempts.log(record) if record else None
        if path is None and job is not None:
            # submitit's name of it, for a job that ended before Python started.
            path = self.attempts.logs / f"{number_of(job)}_0_log.out"
        if path is None or not path.is_file() or not os.access(path, os.R_OK):
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()

    def _waiting_for_keys(self) -> list[TaskKey]:
        """Queued tasks of a detached launch whose keys the step before them assigns. Some of them may get none."""
        assigned = {attempt.number for attempt, _ in self.found}
        waiting: list[TaskKey] = []
        for number in self.numbers:
            if number in assigned:
                continue
            if self._snapshot.silence is None:
                waiting += [(number, shard) for shard, entry in self._queue[number].items() if entry.live]
            elif not self.committed:
                jobs = self._snapshot.jobs[self.attempts.folder, number]
                waiting += [(number, shard) for shard in range(sum(part.count for part in jobs.parts))]
        return waiting

    def _state(self, attempt: Attempt, shard: int) -> TaskState:
        record = self.records.get((attempt.number, shard))
        if record is not None and record.outcome in ("done", "failed"):
            return "done" if record.outcome == "done" else "failed"
        if attempt.cluster == "slurm" and not self.committed:
            return self._state_in_slurm(attempt, shard, record)
        if record is None:
            return "never"
        if record.alive or (self._driven and not record.killed and not self.committed):
            return "running"
        # Without a driver, the task of another machine cannot be checked, so do not report it as a failure.
        return "lost" if record.killed or self.committed else "never"

    def _state_in_slurm(self, attempt: Attempt, shard: int, record: TaskRecord | None) -> TaskState:
        """The state of a task without a final record."""
        gone: TaskState = "never" if record is None else "lost"
        latest = attempt.number == self.numbers[-1]
        jobs = self.jobs(attempt.number)
        entry = self._queue[attempt.number].get(shard)
        if entry is not None:
            if not entry.live:
                return gone
            began = record is not None or self._is_first_of_its_job(jobs, attempt)
            return "running" if entry.state in ON_A_NODE and began else "queued"
        if self._snapshot.silence is not None and jobs is not None and latest:
            return "running" if record is not None and record.outcome == "running" else "queued"
        # The attempt is written and sbatch has not answered yet, or answered after squeue was called.
        submitting = jobs is None or not all(part.job for part in jobs.parts)
        return "queued" if submitting and latest and self._driven and record is None else gone

    def _is_first_of_its_job(self, jobs: Jobs | None, attempt: Attempt) -> bool:
        """Whether this is the first step of its job. A job may run several steps, and only the first has certainly started once it runs."""
        name = job_name(self.run, self.attempts, attempt.number)
        return jobs is not None and jobs.names[0].partition(".")[0] == name
