"""Attempts: which keys each task was assigned (on disk before anything starts), and how each task ended.

jobs/<place>/a0.json is the attempt, a0-00003.keys the keys of its shard 3, a0-00003.json the record that this task keeps. The rows are the
truth about what is done; these files say who works on it, what it cost and why it failed.
"""

import errno
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from sparta.errors import SpartaError
from sparta.methods.registry import phase_named
from sparta.phases.base import Phase, PhaseSpec, WorkItem
from sparta.store import files
from sparta.store.process import ProcessId, identify, lives, machine, slurm_restarts
from sparta.store.run import Run

BEAT_SECONDS = 10.0
"""How often a task touches its record."""


class Attempt(msgspec.Struct, frozen=True):
    """One assignment of a phase's missing keys to shards. cluster: the launcher that runs it. submitted: seconds since 1970.

    spec: the arguments of the phase, see `phase_named`. costs: estimated cost of each shard, in the unit of `WorkItem.cost`; empty where an earlier
    version assigned it. began: when the driver turned to it, also seconds since 1970; 0: when it was submitted. at_once, gpus: the most tasks that
    the launcher runs together, and the most GPUs that it may hold; 0: not known.
    """

    phase: str
    t: int
    number: int
    cluster: str
    shards: int
    items: int
    submitted: float
    costs: list[float] = []
    spec: PhaseSpec | None = None
    began: float = 0.0
    at_once: int = 0
    gpus: int = 0

    @property
    def piece(self) -> "Piece":
        return Piece(self.phase, self.t, self.number, self.spec)


class Piece(NamedTuple):
    """Names one attempt at one phase for a task's process. In a detached launch it exists before the attempt's keys are assigned."""

    phase: str
    t: int
    number: int
    spec: PhaseSpec | None = None

    def attempts(self, run: Run) -> "AttemptDir":
        """The folder of the attempt."""
        return AttemptDir(run, phase_named(self.phase, self.spec, run.recipe), self.t)


class TaskRecord(msgspec.Struct, frozen=True):
    """The record that a task keeps of itself. said: the message of a non-retryable error.

    node, job, gpus, log: its SLURM node and job, the GPUs that it may use (named as in CUDA_VISIBLE_DEVICES), its log file below logs/. requeues:
    how often SLURM restarted it; spent: seconds of those earlier starts. loads, load_seconds: bases loaded by its last start, and the seconds that
    took. notes: what it does otherwise than the recipe asks, see sparta/engines/fallbacks.py. parts: seconds by what they were spent on, without the
    present part, which is `doing`; see sparta/cluster/account.py. While a task runs, its file is touched every few seconds.
    """

    shard: int
    process: ProcessId
    host: str
    started: float
    items: int
    ended: float | None = None
    outcome: Literal["running", "done", "failed", "requeued"] = "running"
    said: str | None = None
    error: str | None = None
    loads: int = 0
    node: str | None = None
    job: str | None = None
    gpus: str | None = None
    log: str | None = None
    requeues: int = 0
    spent: float = 0.0
    load_seconds: float = 0.0
    notes: list[str] = []
    parts: dict[str, float] = {}
    doing: str = ""

    def parts_until(self, ended: float, own: str) -> dict[str, float]:
        """Seconds by part of a task that lasted until `ended`: they add up to the whole, earlier starts included.

        own: what the present part is where an earlier version did not record it.
        """
        whole = self.spent + max(0.0, ended - self.started)
        known = sum(self.parts.values())
        if known > whole:
            # A clock that was set back.
            return {part: seconds * whole / known for part, seconds in self.parts.items()}
        doing = self.doing or own
        return self.parts | {doing: self.parts.get(doing, 0.0) + whole - known}

    @property
    def killed(self) -> bool:
        """Whether the task's process is gone although its record says running; False where another machine ran it."""
        return self.outcome == "running" and self.process.machine == machine() and not lives(self.process)

    @property
    def alive(self) -> bool:
        """Whether the task's process runs on this machine."""
        return self.outcome == "running" and lives(self.process)


class AttemptDir:
    """The attempts of one phase of one iteration."""

    def __init__(self, run: Run, phase: Phase, t: int) -> None:
        self.folder = run.state.jobs / phase.place(t)
        self.phase = phase
        self.t = t
        self._run = run

    @property
    def alternatives(self) -> "list[AttemptDir]":
        """The attempt folders of phases that make the same rows, see `Phase.alternatives`."""
        named = (phase_named(name, recipe=self._run.recipe) for name in self.phase.alternatives)
        return [AttemptDir(self._run, phase, self.t) for phase in named]

    def all(self) -> list[Attempt]:
        """Attempts so far, oldest first."""
        names = (path.name for path in self.folder.glob("a*.json"))
        numbers = sorted(int(name[1:-5]) for name in names if re.fullmatch(r"a\d+\.json", name))
        return [attempt for number in numbers if (attempt := self.attempt(number)) is not None]

    @property
    def numbers(self) -> set[int]:
        """Numbers of attempts that have keys or submitted jobs."""
        return {int(path.stem.partition("-")[0][1:]) for path in self.folder.glob("a*.json")}

    def next_number(self) -> int:
        """A number that no attempt here or at alternatives has. It names shard files in a shared folder, and a higher one was assigned later."""
        return max((number for each in (self, *self.alternatives) for number in each.numbers), default=-1) + 1

    def attempt(self, number: int) -> Attempt | None:
        """The attempt of that number; None where its keys were not assigned."""
        path = self.folder / f"a{number}.json"
        found = files.read_measured(path, Attempt)
        return self._rebuilt(number, path) if found is None and os.path.lexists(path) else found

    def _rebuilt(self, number: int, path: Path) -> Attempt:
        """The attempt of a damaged file, reconstructed from the files beside it: enough to wait for its tasks and to cancel them."""
        names = {other.name for other in self.folder.glob(f"a{number}-*")}
        by_slurm = f"a{number}-jobs.json" in names
        local = any(name.endswith(".process") for name in names)
        shards = sum(name.endswith(".keys") for name in names)
        return Attempt(
            phase=self.phase.name,
            t=self.t,
            number=number,
            cluster="slurm" if by_slurm else "local" if local else "inline",
            shards=shards,
            items=sum(len(self.keys(number, shard)) for shard in range(shards)),
            submitted=path.lstat().st_mtime,
            spec=self.phase.spec,
        )

    def assign(
        self,
        shards: Sequence[Sequence[WorkItem]],
        cluster: str,
        number: int | None = None,
        began: float = 0.0,
        at_once: int = 0,
        gpus: int = 0,
    ) -> Attempt:
        """Write a new attempt, under a reserved number where one is given: first its keys, then the attempt itself. The rest as in `Attempt`."""
        number = self.next_number() if number is None else number
        for shard, items in enumerate(shards):
            files.write_bytes(
                self.keys_file(number, shard), "".join(f"{item.key}\n" for item in items).encode()
            )
        attempt = Attempt(
            phase=self.phase.name,
            t=self.t,
            number=number,
            cluster=cluster,
            shards=len(shards),
            items=sum(map(len, shards)),
            submitted=time.time(),
            costs=[round(math.fsum(item.cost for item in items), 3) for items in shards],
            spec=self.phase.spec,
            began=began,
            at_once=at_once,
            gpus=gpus,
        )
        files.write_json(self.folder / f"a{number}.json", attempt)
        return attempt

    def keys_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.keys"

    def record_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.json"

    def keys(self, number: int, shard: int) -> list[str]:
        return files.read_bytes(self.keys_file(number, shard)).decode(errors="replace").split("\n")[:-1]

    def records(self, attempt: Attempt) -> list[TaskRecord]:
        """The records of the tasks of `attempt`; none for a task that never started."""
        found = (self.record(attempt.number, shard) for shard in range(attempt.shards))
        return [record for record in found if record is not None]

    def record(self, number: int, shard: int) -> TaskRecord | None:
        """The record of one shard of attempt `number`; None where its task never started."""
        return files.read_measured(self.record_file(number, shard), TaskRecord)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, record: TaskRecord) -> Path | None:
        """The log file of a task; None where it shares its driver's output."""
        return self.logs / record.log if record.log else None


def with_alternatives(run: Run, phases: Sequence[Phase], t: int) -> list[Phase]:
    """`phases`, each followed by its alternatives that have attempts or jobs in iteration t, because an earlier launch used them."""
    found: dict[str, Phase] = {}
    for phase in phases:
        alternatives = (each.phase for each in AttemptDir(run, phase, t).alternatives if each.numbers)
        for one in (phase, *alternatives):
            found.setdefault(one.name, one)
    return list(found.values())


class TaskReporter:
    """Keeps the record of the task in this process up to date, from its start to its end.

    A node that lost its network may keep running a task that SLURM has restarted elsewhere. Then the record belongs to the later start.
    """

    def __init__(self, path: Path, record: TaskRecord) -> None:
        self._path = path
        self._record = record
        self._before = record.parts

    def started(self) -> None:
        """Record the start of the task, replacing the record of an earlier start."""
        files.write_json(self._path, self._record)

    @property
    def overtaken(self) -> bool:
        """Whether SLURM has restarted this task elsewhere."""
        noted = files.read_measured(self._path, TaskRecord)
        return noted is not None and noted.requeues > self._record.requeues

    def noted(self, notes: list[str]) -> None:
        """Record what the task does otherwise than the recipe asks, if that is new."""
        if notes != self._record.notes:
            self._write(notes=notes)

    def spends(
        self, parts: Mapping[str, float], doing: str, loads: int = 0, load_seconds: float = 0.0
    ) -> None:
        """Record what its time was spent on so far, in seconds by part, what it begins now, and the bases that it has loaded."""
        total = dict(self._before)
        for part, seconds in parts.items():
            total[part] = total.get(part, 0.0) + seconds
        # A record of measurements: if the disk fails, a row or the end of the task says so.
        with suppress(SpartaError):
            self._write(parts=total, doing=doing, loads=loads, load_seconds=load_seconds)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Touch the record every few seconds, so that the time of a task that is killed is known."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                with suppress(SpartaError, OSError):
                    if not self.overtaken:
                        os.utime(self._path)

        threading.Thread(target=beat, name="beat of the task", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def done(self, loads: int, load_seconds: float = 0.0) -> None:
        """Record that all its keys are done, with the bases that it loaded."""
        self._write(outcome="done", ended=time.time(), loads=loads, load_seconds=load_seconds)

    def failed(self, error: BaseException) -> None:
        """Record why the task failed."""
        message = str(error) if isinstance(error, SpartaError) else None
        said = None if isinstance(error, SpartaError) and _of_this_node(error) else message
        why = message or f"{type(error).__name__}: {error}"
        self._write(outcome="failed", ended=time.time(), said=said, error=why)

    @property
    def preempted(self) -> bool:
        """Whether the task has recorded that SLURM will restart it."""
        return self._record.outcome == "requeued"

    def requeued(self) -> None:
        """Record that the task stops and SLURM will restart it. Signal handlers call it, too."""
        self._write(outcome="requeued", ended=time.time())

    def _write(self, **changes: object) -> None:
        self._record = msgspec.structs.replace(self._record, **changes)
        if not self.overtaken:
            files.write_json(self._path, self._record)


def _of_this_node(error: SpartaError) -> bool:
    """Whether `error` is a disk error that another node may not have, such as a stale or missing mount; a full or read-only disk is not."""
    cause = error.__cause__
    everywhere = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(cause, OSError) and cause.errno not in everywhere


def new_record(
    shard: int,
    items: int,
    before: TaskRecord | None = None,
    last_seen: float = 0.0,
    gpus: Sequence[str] = (),
    doing: str = "",
) -> TaskRecord:
    """The record of a task that starts now, in this process. gpus: those that it may use. doing: what it begins with.

    before: the record of the task's previous start, where SLURM restarted it. last_seen: the last sign of progress of that start, in seconds since
    1970, used where it did not record its end.
    """
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    return TaskRecord(
        shard=shard,
        process=identify(os.getpid()),
        host=socket.gethostname(),
        started=time.time(),
        items=items,
        node=os.environ.get("SLURMD_NODENAME"),
        job=f"{job}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if job else os.environ.get("SLURM_JOB_ID"),
        gpus=",".join(gpus) or None,
        log=_log_of_this_process(),
        requeues=max(before.requeues + 1 if before else 0, _restarts_of_this_process()),
        spent=before.spent + max(0.0, (before.ended or last_seen) - before.started) if before else 0.0,
        parts=before.parts_until(before.ended or last_seen, doing) if before else {},
        doing=doing,
    )


def _restarts_of_this_process() -> int:
    """How often SLURM has restarted this task; 0 in a process that is not a SLURM task, even inside a job."""
    return slurm_restarts() if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" else 0


def _log_of_this_process() -> str | None:
    """The name of this process's submitit log; None in a process that submitit did not start."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    import submitit

    return str(submitit.JobEnvironment().paths.stdout.name)


Watch = Callable[[float], None]
