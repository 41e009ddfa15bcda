"""Where a run stands, read from its state alone: also while it runs, after a crash, and for somebody else's run.

Whether a SLURM job is queued or running only SLURM knows: squeue is asked once. Nothing is written and no engine is loaded.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from sparta.arena.reputation import Standing
from sparta.cluster.attempts import Attempt, AttemptDir, TaskRecord
from sparta.cluster.driver import LOG_LINES, last_lines
from sparta.cluster.estimate import seconds_an_iteration
from sparta.cluster.failure import Failure, last_failure
from sparta.cluster.measure import GpuTime, Span, gpu_spans, gpu_time, told
from sparta.cluster.slurm import controller
from sparta.cluster.slurm.chain import Chain, latest_chain
from sparta.cluster.slurm.controller import HOPELESS, Silent, Task
from sparta.cluster.slurm.jobs import Jobs, all_jobs, job_name
from sparta.cluster.slurm.launcher import in_words
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases import standings
from sparta.phases.base import Phase, RowPhase
from sparta.phases.stats import IterationStats
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.manifest import read_manifest
from sparta.store.run import Run
from sparta.store.shards import count_keys

RATE_WINDOW_SECONDS = 1.0
EXIT_CODES = {"done": 0, "failed": 1, "running": 3, "stopped": 3}
ON_A_NODE = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"))
"""SLURM's states of a task that has a node; in every other living state it waits for one."""

TaskState = Literal["done", "failed", "lost", "running", "queued", "never"]
"""Of a task. lost: gone without a word (killed, cancelled, its node died). never: not in the queue and never started."""


class PhaseStatus(msgspec.Struct, frozen=True):
    """One phase of one iteration. total is None while it cannot be known. rate: items a second of the latest attempt.

    failed: tasks that ended without having done their work, `lost` ones included, which did not say so. requeued: how often tasks were
    started again by SLURM, or are to be. nodes: of tasks that run. waiting: why tasks wait, where that is worth saying. jobs: ids of its
    SLURM jobs. gpu_seconds, gpu_idle: see sparta/cluster/measure.py.
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

    @property
    def complete(self) -> bool:
        return self.total is not None and self.done >= self.total


class IterationStatus(msgspec.Struct, frozen=True):
    t: int
    committed: bool
    phases: list[PhaseStatus]
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None


class EndedTask(msgspec.Struct, frozen=True):
    """A task that stopped a run. shard is None where none of the phase's tasks ever started. why: its error, or what SLURM says of its end."""

    phase: str
    t: int
    shard: int | None
    node: str | None
    job: str | None
    why: str


class Status(msgspec.Struct, frozen=True):
    """A run. state: done; failed (the last launch ended with an error, or a detached one lost a task); running (a driver holds the lock, or
    jobs go on in SLURM without one); stopped.

    detached: without a driver, what goes on in SLURM all the same. silence: why SLURM could not be asked; what is queued or running is then
    as the files last said. ended: the tasks that a failure is due to. gpu_seconds, gpu_idle: of all iterations together.
    """

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
    detached: str | None = None
    silence: str | None = None
    ended: list[EndedTask] = []
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]


@dataclass(frozen=True)
class Seen:
    """The SLURM jobs of a run's unfinished iterations, by folder and number of their attempt, and what squeue says of them.

    tasks: by the job's name. silence: why squeue said nothing.
    """

    jobs: Mapping[tuple[Path, int], Jobs]
    tasks: Mapping[str, Sequence[Task]]
    silence: str | None = None

    def numbers(self, attempts: AttemptDir) -> list[int]:
        """Attempts that jobs were submitted for, also those that nothing has been dealt to."""
        return sorted(number for folder, number in self.jobs if folder == attempts.folder)

    def of(self, attempts: AttemptDir, number: int) -> dict[int, Task]:
        """What squeue says of attempt `number`, by shard."""
        jobs = self.jobs.get((attempts.folder, number))
        return jobs.by_shard(task for name in jobs.names for task in self.tasks.get(name, ())) if jobs else {}

    @property
    def living(self) -> list[Task]:
        """Jobs of the run that are queued or running."""
        return [task for found in self.tasks.values() for task in found if task.live]


def status_of(run: Run) -> Status:
    """The status of `run`."""
    phases = phases_of(run.recipe.method)
    committed = set(run.state.committed())
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no committed iteration, not even iter_00: restore it from a copy"
        )
    last = max(committed)
    # SLURM first, records after: a task that ends in between has then said so.
    seen = _ask(run, phases, committed)
    now = holder(run.state)
    driver = str(now.claim) if now and now.alive else None
    looks = [
        _Look(run, phase, t, t in committed, driver is not None, seen)
        for t in _iterations(run, phases, seen)
        for phase in phases
    ]
    chain = latest_chain(run)
    detached = None if driver else _detached(chain, seen, looks)
    failure = None if driver else last_failure(run)
    ended, log = _ended(looks, chain, seen) if driver is None else ([], None)
    state: Literal["done", "failed", "running", "stopped"] = "stopped"
    if driver:
        state = "running"
    elif last >= run.recipe.iterations:
        state = "done"
    elif detached and not (failure and seen.silence):
        state = "running"
    elif failure or ended:
        state = "failed"
    wrong = state == "failed" or (state == "running" and failure is not None)
    each = seconds_an_iteration(run)
    iterations, gpu = _by_iteration(run, looks)
    return Status(
        run_id=run.info.run_id,
        recipe=run.recipe.name,
        state=state,
        iterations=iterations,
        planned=run.recipe.iterations,
        driver=driver,
        failure=failure if wrong else None,
        log=(log or _failing_log(looks)) if wrong else None,
        seconds_left=None if each is None or state == "done" else each * (run.recipe.iterations - last),
        standing=standings.at_end(run, last),
        standing_after=last,
        detached=detached if state == "running" else None,
        silence=seen.silence,
        ended=ended if wrong else [],
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
    )


def _iterations(run: Run, phases: Sequence[Phase], seen: Seen) -> list[int]:
    """Iterations that have begun or for which jobs are queued, ascending."""
    submitted = {
        t
        for t in StateDir(run.state.jobs).iterations()
        if any(seen.numbers(AttemptDir(run, phase, t)) for phase in phases)
    }
    return sorted(t for t in {*run.state.iterations(), *submitted} if t > 0)


def _ask(run: Run, phases: Sequence[Phase], committed: set[int]) -> Seen:
    """Ask squeue, once, about the jobs of all iterations that are not committed."""
    folders = [
        AttemptDir(run, phase, t)
        # jobs/ has a folder for an iteration, too
        for t in StateDir(run.state.jobs).iterations()
        if t not in committed
        for phase in phases
    ]
    jobs = {
        (attempts.folder, number): found
        for attempts in folders
        for number, found in all_jobs(attempts).items()
    }
    if not jobs:
        return Seen({}, {})
    if not controller.installed():
        return Seen(jobs, {}, "its commands are not on PATH here")
    tasks: dict[str, list[Task]] = {}
    try:
        for task in controller.tasks_named(name for found in jobs.values() for name in found.names):
            tasks.setdefault(task.name, []).append(task)
    except (Silent, SpartaError) as error:
        return Seen(jobs, {}, str(error))
    return Seen(jobs, tasks)


class _Look:
    """What is known of one phase of one iteration. driven: a driver lives; without one, tasks of other machines are taken for dead."""

    def __init__(self, run: Run, phase: Phase, t: int, committed: bool, driven: bool, seen: Seen) -> None:
        self.run, self.phase, self.t, self.committed = run, phase, t, committed
        self._driven, self._seen = driven, seen
        self.attempts = AttemptDir(run, phase, t)
        self.found = told(self.attempts)
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
        )
        if not isinstance(phase, RowPhase):
            return msgspec.structs.replace(told_now, done=int(not phase.missing(run, t)), total=1)
        folder = phase.folder(run, t)
        rows = read_manifest(run.iteration(t)).rows if self.committed else {}
        if folder.name in rows:
            count = rows[folder.name].count
            return msgspec.structs.replace(told_now, done=count, total=count)
        done = count_keys(folder, phase.rows)
        total = len(phase.work(run, t)) if run.iteration(t).plan.is_file() else None
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
            path = self.attempts.logs / f"{job}_0_log.out"
        if path is None or not os.access(path, os.R_OK):
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _why_wait(pending: Sequence[Task]) -> str:
    """SLURM's reasons, and in words those that time alone does not remove."""
    hopeless = sorted({task.reason for task in pending} & HOPELESS.keys())
    return "; ".join(
        filter(None, (in_words(pending), *(f"{reason}: {HOPELESS[reason]}" for reason in hopeless)))
    )


def _detached(chain: Chain | None, seen: Seen, looks: Sequence[_Look]) -> str | None:
    """What goes on in SLURM without a driver; None where nothing does."""
    if seen.silence is None:
        # The first job of a chain whose submission was broken off is held: it never starts by itself.
        held = set(chain.names) if chain is not None and not chain.whole else set[str]()
        names = {task.name for task in seen.living} - held
        count = sum(task.name in names for task in seen.living)
    else:
        names = {name for jobs in seen.jobs.values() for name in jobs.names}
        count = sum(look.status.running + look.status.queued for look in looks)
    if not names or not count:
        return None
    if chain is not None and chain.whole and names & set(chain.names):
        since = datetime.fromtimestamp(chain.submitted).astimezone().isoformat(timespec="minutes")
        ids = [job for _, found in chain.links for job in found]
        which = f" (jobs {ids[0]} to {ids[-1]})" if ids else ""
        return f"a detached launch{which}, submitted {since}, goes on by itself up to iteration {chain.last}"
    return (
        f"{count} task{'s' * (count != 1)} of an earlier launch; nobody will deal out what comes after them"
    )


def _ended(looks: Sequence[_Look], chain: Chain | None, seen: Seen) -> tuple[list[EndedTask], str | None]:
    """The tasks that ended a detached launch and the end of the log of one: those of the first phase that is not complete."""
    if chain is None or not chain.whole or seen.silence is not None:
        return [], None
    look = next((look for look in looks if not look.committed and not look.status.complete), None)
    blamed = look.blamed(chain) if look else []
    if look is None or not blamed:
        return [], None
    if look.states[blamed[0]] == "never":
        for before in looks[: looks.index(look)]:
            if not before.committed and (spoiled := before.spoiled(chain)):
                look, blamed = before, spoiled
                break
    forgotten = [job for key in blamed if look.forgotten(key) and (job := look.job(key))]
    try:
        fates = controller.ends_in_accounts(forgotten)
    except (Silent, SpartaError):
        fates = {}
    log = None if look.states[blamed[0]] == "failed" else look.log(blamed[0])
    return [look.ended(key, fates) for key in blamed], log


def _by_iteration(run: Run, looks: Sequence[_Look]) -> tuple[list[IterationStatus], GpuTime]:
    """Iterations, and the GPU time of all of them together."""
    found, gpus = [], []
    for t in sorted({look.t for look in looks}):
        mine = [look for look in looks if look.t == t]
        phases = [look.status for look in mine]
        measured = _measured(run, t) if mine[0].committed else None
        if measured is not None:
            gpu = GpuTime(measured.gpu_seconds, measured.gpu_idle)
        else:
            gpu = gpu_time(array for look in mine for array in look.spans)
        gpus.append(gpu)
        found.append(IterationStatus(t, mine[0].committed, phases, gpu.used, gpu.idle))
    used, there = sum(gpu.used for gpu in gpus), sum(gpu.there for gpu in gpus)
    return found, GpuTime(used, max(0.0, 1 - used / there) if there else None)


def _measured(run: Run, t: int) -> IterationStats | None:
    """stats.json, where the iteration was measured and not with an earlier version."""
    path = run.iteration(t).stats
    stats = files.read_json(path, IterationStats) if path.is_file() else None
    return stats if stats is not None and stats.phases else None


def _failing_log(looks: Sequence[_Look]) -> str | None:
    """The last lines of the log of the phase that failed last."""
    for look in reversed(looks):
        if look.status.failed:
            return last_lines(look.attempts) if look.attempts.logs.is_dir() else None
    return None
