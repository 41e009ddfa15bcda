"""Job arrays on SLURM, one for each attempt. Results are read from rows and records; squeue is asked about tasks without a final record.

Jobs survive the driver. They are found again by their names, which are on disk before anything is submitted.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import msgspec

from sparta.cluster.attempts import Attempt, AttemptDir, Watch
from sparta.cluster.launcher import Launcher
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry, SlurmUnavailable, needs_a_person
from sparta.cluster.slurm.code_snapshot import snapshot, snapshot_folder
from sparta.cluster.slurm.container import Mount, check_container, in_words, mounts_of
from sparta.cluster.slurm.job_ids import (
    ArrayPart,
    Jobs,
    all_jobs,
    job_name,
    jobs_file,
    jobs_of,
    names_and_places,
    note_jobs,
    noted_jobs,
    of_this_state,
    parts_of,
)
from sparta.cluster.slurm.profile import DEFAULT_PROFILE, Profile, Resources, load_profile
from sparta.cluster.slurm.profile_checks import check_gpus, check_partitions
from sparta.cluster.slurm.queue import SECONDS_BETWEEN_TRIES, Queue, reasons_in_words
from sparta.cluster.slurm.submit import Array, submit, throttles
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.pool.gpu_memory import check_memory
from sparta.store.run import Run

SECONDS_TO_COMPLETE = 60.0
"""How long to wait for a task in state COMPLETING: without a final record it may still be writing, with one it holds its GPUs."""
FAILURES_TO_AVOID = 2
"""The next attempt of a phase avoids a node on which at least this many of its tasks failed, and more than succeeded."""
BLAMELESS = ("CANCELLED", "COMPLETED", "PREEMPTED")
"""Final states of a task that do not count against its node."""


class Slurm(Launcher):
    name = "slurm"
    survives = True
    # Less often than on a local disk: many nodes share this one.
    poll_seconds = 0.5

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._ending: dict[str, float] = {}
        self._absent: dict[tuple[Path, int, int], float] = {}
        self._ended: dict[tuple[Path, int], dict[int, QueueEntry]] = {}

    @cached_property
    def profile(self) -> Profile:
        """The cluster profile, as its file is now. Raises SpartaError."""
        return load_profile(self._run.recipe.cluster.profile or DEFAULT_PROFILE)

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        """Those of the profile's container. Raises SpartaError."""
        container = self.profile.container
        return tuple(mounts_of(self._run, container)) if container else ()

    @cached_property
    def queue(self) -> Queue:
        return Queue(self.profile.poll_seconds, self.profile.patience_minutes * 60)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that sbatch chooses from for each job; empty: the default cluster."""
        return self.profile.clusters or cli.clusters_of_user()

    def places(self, clusters: Sequence[str]) -> tuple[str, ...]:
        """See `cli.clusters_to_ask`. Raises SpartaError."""
        with cli.answering("try again when it does"):
            return cli.clusters_to_ask(clusters)

    @property
    def where(self) -> str:
        return f"slurm, profile {self.profile.name}"

    @property
    def container(self) -> Sequence[str]:
        container = self.profile.container
        return in_words(container, self.mounts, self.profile.setup) if container else ()

    @property
    def width(self) -> int:
        """The most tasks of any phase that run at the same time."""
        return min(self.profile.width, self._run.recipe.cluster.at_once or self.profile.width)

    def resources(self, phase: Phase) -> Resources:
        """The resources of a task of `phase`. A task that calls an endpoint needs no GPU, like a step."""
        recipe = self._run.recipe
        return self.profile.shape(phase.name, phase.runs_on(recipe), max(1, phase.gpus(recipe)))

    def at_once(self, phase: Phase) -> int:
        """Fewer where a task takes several GPUs of a node: not all nodes have room for one more."""
        profile, gpus = self.profile, self.resources(phase).gpus
        there = profile.nodes * (profile.gpus_per_node // gpus) if gpus > 1 else self.width
        return max(1, min(self.width, there))

    def gpus(self, phase: Phase) -> int:
        """Those of the profile; if it or the recipe limits the tasks at once, as many as these ask for."""
        profile = self.profile
        there = profile.nodes * profile.gpus_per_node
        limited = profile.at_once is not None or self._run.recipe.cluster.at_once is not None
        return min(there, self.at_once(phase) * self.resources(phase).gpus) if limited else there

    def tasks(self, phase: Phase) -> int:
        return self._run.recipe.cluster.tasks or self.at_once(phase)

    def takes(self, phase: Phase) -> bool:
        # A light step is done before a job for it would start.
        return not phase.light

    def check(self, phases: Sequence[Phase]) -> None:
        self.check_gpus(phases)
        cli.require("sbatch", "srun")
        if self.profile.container is not None:
            check_container(self.profile.container, self.profile.name)
        with cli.answering("try again when it does, or run without it with --cluster local"):
            known = cli.partitions(self.places(self.clusters) or (None,))
        asked = {phase.name: self.resources(phase) for phase in phases}
        check_partitions(self.profile, asked, known, self.clusters)

    def check_gpus(self, phases: Sequence[Phase]) -> None:
        """Raises SpartaError where tasks of `phases` need more GPUs, or more of their memory, than the profile has. Asks SLURM nothing."""
        profile = self.profile
        for phase in phases:
            check_gpus(profile, phase, phase.gpus(self._run.recipe), self.resources(phase).gpus)
        if any(phase.trains for phase in phases):
            check_memory(self._run, profile.gpu_memory_gib, profile.name)

    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        work = ShardJob(self._run.state.root.resolve(), (attempt.piece,))
        self.submit(work, attempt.shards, dependency=self._after_ending_tasks())

    def _after_ending_tasks(self) -> str | None:
        """The dependency on tasks of this run that still hold GPUs, where the recipe limits tasks at once; None after they have ended.

        Tasks that have written their results get SECONDS_TO_COMPLETE to end. SLURM would wait for one that is stuck in COMPLETING without limit, so
        there is no dependency on that. SLURM has no dependencies between clusters, so there is none where several may be chosen.
        """
        if self._run.recipe.cluster.at_once is None or self.clusters:
            return None
        deadline = time.monotonic() + SECONDS_TO_COMPLETE
        while ending := self._holding_gpus():
            if time.monotonic() >= deadline:
                break
            time.sleep(min(self.profile.poll_seconds, SECONDS_BETWEEN_TRIES))
        jobs = {cli.number_of(task.whole) for task in ending if task.state != "COMPLETING"}
        return f"afterany:{':'.join(sorted(jobs))}" if jobs else None

    def _holding_gpus(self) -> list[QueueEntry]:
        """Tasks of this run that have started and not ended, without those stuck in COMPLETING."""
        with cli.answering():
            known = cli.tasks_named(*names_and_places(noted_jobs(self._run)))
        return [
            task
            for task in of_this_state(self._run.state.code, known)
            if task.state != "PENDING" and self._goes_on(task)
        ]

    def submit(
        self,
        work: ShardJob,
        shards: int,
        dependency: str | None = None,
        hold: bool = False,
        on: str | None = None,
    ) -> list[str]:
        """Submit `work` for `shards` shards and return the ids of its jobs. Name, resources and logs are those of its first piece.

        SLURM has no dependencies between clusters, so all jobs of a chain go to one cluster. on: the cluster of its earlier jobs, if any.
        """
        places = [(piece.attempts(self._run), piece.number) for piece in work.pieces]
        snapshot(self._run.state)
        arrays = self.arrays(work, shards, dependency, hold)
        clusters = self.clusters if on is None else (on,)
        possible = self.places(clusters)
        parts = [ArrayPart(array.name, array.first, array.count, None, possible) for array in arrays]
        note_jobs(places, Jobs(parts))
        for index, array in enumerate(arrays):
            job = submit(replace(array, clusters=clusters, places=possible), self.profile, self.say)
            parts[index] = msgspec.structs.replace(parts[index], job=job)
            note_jobs(places, Jobs(parts))
            there = cli.cluster_of(job)
            if clusters and there is not None and (hold or dependency is not None):
                clusters = possible = (there,)
        return [part.job for part in parts if part.job is not None]

    def arrays(
        self, work: ShardJob, shards: int, dependency: str | None = None, hold: bool = False
    ) -> list[Array]:
        """The arrays that `submit` submits. Writes nothing. Without SLURM, arrays may have any size."""
        first = work.pieces[0]
        attempts = first.attempts(self._run)
        asked, at_once = self.resources(attempts.phase), self.at_once(attempts.phase)
        resources = replace(asked, exclude=(*asked.exclude, *self._avoided(attempts, asked.exclude)))
        largest = self._largest_array() if cli.installed() else shards
        parts = parts_of(job_name(self._run, attempts, first.number), shards, largest, at_once)
        return [
            Array(
                name=part.name,
                work=work,
                first=part.first,
                count=part.count,
                throttle=throttle,
                resources=resources,
                logs=attempts.logs.resolve(),
                code=snapshot_folder(self._run.state),
                dependency=dependency,
                hold=hold,
                clusters=self.clusters,
                mounts=self.mounts,
            )
            for part, throttle in zip(parts, throttles(at_once, [part.count for part in parts]), strict=True)
        ]

    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        silent = self._silent(attempts, attempt)
        if not silent:
            return []
        jobs, tasks = jobs_of(attempts, attempt.number), self._tasks(attempts, attempt.number)
        self._refuse_blocked(tasks)
        empty = self._withdraw_empty(attempts, attempt.number, tasks)
        going_on = []
        for shard in silent:
            key = (attempts.folder, attempt.number, shard)
            if shard in tasks and shard not in empty and self._goes_on(tasks[shard]):
                self._absent.pop(key, None)
                going_on.append(shard)
            elif jobs is not None and jobs.id_of(shard) is not None and not self._settled(key):
                going_on.append(shard)
        return going_on

    def has_unassigned_jobs(self, attempts: AttemptDir) -> bool:
        unassigned = [number for number in all_jobs(attempts) if attempts.attempt(number) is None]
        if not unassigned:
            return False
        tasks = [self._tasks(attempts, number) for number in unassigned]
        for found in tasks:
            self._refuse_blocked(found)
        # One key for the whole chain: once it is known to be gone, the other phases need not wait again.
        key = (self._run.state.jobs, 0, 0)
        if any(self._goes_on(task) for found in tasks for task in found.values()):
            self._absent.pop(key, None)
            return True
        return not self._settled(key)

    def waiting(self, attempts: AttemptDir) -> str:
        if self.queue.silence:
            return f"SLURM does not answer ({self.queue.silence}); asking again"
        jobs = all_jobs(attempts).values()
        return reasons_in_words(self.queue.tasks(jobs)) if jobs else ""

    def end_states(self, attempts: AttemptDir, attempt: Attempt) -> Mapping[int, str]:
        jobs = jobs_of(attempts, attempt.number)
        if jobs is None:
            return {}
        records = {record.shard: record for record in attempts.records(attempt)}
        silent = self._silent(attempts, attempt)
        tasks = self._tasks(attempts, attempt.number)
        lost = [job for shard in silent if shard not in tasks and (job := jobs.id_of(shard))]
        try:
            accounts = cli.states_in_accounting(lost)
        except SlurmUnavailable:
            accounts = {}
        end_states = {}
        for shard in silent:
            task, record = tasks.get(shard), records.get(shard)
            state = task.state if task else accounts.get(jobs.id_of(shard) or "", "")
            node = (record.node if record else None) or (task.node if task else None)
            end_states[shard] = (state.lower() or "gone from SLURM's queue") + (f" on {node}" if node else "")
        return end_states

    def interrupted(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """Nothing to do: jobs outlive their driver."""

    def _tasks(self, attempts: AttemptDir, number: int) -> dict[int, QueueEntry]:
        """The latest squeue entry of every shard of attempt `number`. Final states are remembered: squeue drops tasks minutes after their end."""
        jobs = jobs_of(attempts, number)
        if jobs is None:
            return {}
        if not cli.installed():
            raise SpartaError(
                f"tasks of {attempts.phase.name} were submitted to SLURM, and there is no squeue here to check whether they run: continue on a machine "
                f"with SLURM, or, if none of them can be running any more, remove {jobs_file(attempts, number)}"
            )
        now = jobs.by_shard(of_this_state(self._run.state.code, self.queue.tasks([jobs])))
        ended = self._ended.setdefault((attempts.folder, number), {})
        ended.update({shard: task for shard, task in now.items() if not task.live})
        return {**ended, **now}

    def _silent(self, attempts: AttemptDir, attempt: Attempt) -> list[int]:
        """Shards of `attempt` whose records do not say how they ended."""
        ended = {record.shard for record in attempts.records(attempt) if record.outcome in ("done", "failed")}
        return [shard for shard in range(attempt.shards) if shard not in ended]

    def _settled(self, key: tuple[Path, int, int]) -> bool:
        """Whether a task has been missing for two answers of squeue: one answer may be wrong, and the task's last rows may not be visible yet."""
        since = self._absent.setdefault(key, time.monotonic())
        return time.monotonic() - since >= 2 * self.profile.poll_seconds

    def _goes_on(self, task: QueueEntry) -> bool:
        """Whether a task may still write rows: it is in the queue, and not stuck in COMPLETING on a node that does not answer."""
        if task.state != "COMPLETING":
            self._ending.pop(task.job, None)
            return task.live
        since = self._ending.setdefault(task.job, time.monotonic())
        return time.monotonic() - since < SECONDS_TO_COMPLETE

    def _refuse_blocked(self, tasks: Mapping[int, QueueEntry]) -> None:
        """Where a task waits for something that will not happen, cancel the pending tasks of its attempt and raise SpartaError."""
        stuck = [task for task in tasks.values() if task.state == "PENDING" and needs_a_person(task.reason)]
        if not stuck:
            return
        first = stuck[0]
        with suppress(SlurmUnavailable):  # the next launch finds what is left
            cli.cancel([task.job for task in tasks.values() if task.state == "PENDING"])
        raise SpartaError(
            f"SLURM will not start job {first.job} ({first.name}): {needs_a_person(first.reason)} ({first.reason}); it was cancelled. Correct profile "
            f"{self.profile.name} or ask the cluster's administrators, then run the same command again"
        )

    def _withdraw_empty(self, attempts: AttemptDir, number: int, tasks: Mapping[int, QueueEntry]) -> set[int]:
        """Cancel tasks whose driver died while submitting them, and return their shards.

        Tasks get their pickles after sbatch has answered; these never will. Only the holder of the run's lock may call this: it has noted the
        ids of everything that it submitted itself.
        """
        jobs = jobs_of(attempts, number)
        unnoted = {part.name for part in jobs.parts if part.job is None} if jobs else set()
        empty = {
            shard: task.job
            for shard, task in tasks.items()
            if task.name in unnoted
            and task.live
            and not (attempts.logs / f"{cli.number_of(task.job)}_submitted.pkl").is_file()
        }
        with suppress(SlurmUnavailable):  # they stop after waiting for a minute
            cli.cancel(sorted(empty.values()))
        return set(empty)

    def _largest_array(self) -> int:
        with cli.answering("run the same command again when it does"):
            return min(map(cli.largest_array, self.places(self.clusters) or (None,)))

    def _avoided(self, attempts: AttemptDir, excluded: Sequence[str]) -> list[str]:
        """Nodes on which tasks of this phase failed repeatedly while other nodes succeeded."""
        failed, done = Counter[str](), Counter[str]()
        for attempt in attempts.all():
            ended = self._ended.get((attempts.folder, attempt.number), {})
            for shard in range(attempt.shards):
                record, task = attempts.record(attempt.number, shard), ended.get(shard)
                if record is None:
                    # It failed before it could write a record.
                    if task is not None and task.node and task.state not in BLAMELESS:
                        failed[task.node] += 1
                elif record.node is not None and record.said is None:
                    (done if record.outcome == "done" else failed)[record.node] += 1
        bad = {node for node, count in failed.items() if count >= FAILURES_TO_AVOID and count > done[node]}
        # Where tasks fail everywhere, no node is to blame.
        on_gpus = attempts.phase.runs_on(self._run.recipe) == "gpu"
        nodes = self.profile.nodes if on_gpus else len({*failed, *done})
        return sorted(bad - set(excluded)) if len(bad) < nodes else []
