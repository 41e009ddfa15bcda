"""Attempts: what was dealt to which task, on disk before anything starts, and what became of each task.

jobs/<place>/a0.json is the attempt, a0-00003.keys the keys of its shard 3, a0-00003.json what that task says of itself. The rows remain the
truth about what is done; these files say who is on it, what it cost and why it failed.
"""

import errno
import math
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from sparta.errors import SpartaError
from sparta.methods.registry import phase_named
from sparta.phases.base import Phase, PhaseSpec, WorkItem
from sparta.store import files
from sparta.store.process import ProcessId, identify, lives, machine, slurm_restarts
from sparta.store.run import Run


class Attempt(msgspec.Struct, frozen=True):
    """One dealing of a phase's missing keys. cluster: the launcher that has it. submitted: seconds since 1970.

    spec: what the phase was asked for, see `phase_named`. costs: of each shard as it was dealt, in the unit of `WorkItem.cost`; empty where an earlier version dealt.
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

    @property
    def piece(self) -> "Piece":
        return Piece(self.phase, self.t, self.number, self.spec)


class Piece(NamedTuple):
    """One attempt at one phase, as a task's process is told of it: before the attempt is dealt out, for one of a detached launch."""

    phase: str
    t: int
    number: int
    spec: PhaseSpec | None = None

    def attempts(self, run: Run) -> "AttemptDir":
        """Where the attempt is kept."""
        return AttemptDir(run, phase_named(self.phase, self.spec, run.recipe), self.t)


class TaskRecord(msgspec.Struct, frozen=True):
    """What a task says of itself. said: the sentence of an error that trying again cannot mend.

    node, job, gpus, log: the SLURM node and job it runs as, CUDA_VISIBLE_DEVICES, the file below logs/ that it writes to. requeues: how often
    SLURM started it again; spent: seconds of those earlier starts. loads, load_seconds: bases loaded, of its last start, and what that took.
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

    @property
    def killed(self) -> bool:
        """Whether the task is gone without having said how it ended; False where that cannot be seen from this machine."""
        return self.outcome == "running" and self.process.machine == machine() and not lives(self.process)

    @property
    def alive(self) -> bool:
        """Whether the task's process is there, on this machine."""
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
        """The attempts at the same rows in another way, see `Phase.alternatives`."""
        named = (phase_named(name, recipe=self._run.recipe) for name in self.phase.alternatives)
        return [AttemptDir(self._run, phase, self.t) for phase in named]

    def all(self) -> list[Attempt]:
        """Attempts so far, oldest first."""
        names = (path.name for path in self.folder.glob("a*.json"))
        numbers = sorted(int(name[1:-5]) for name in names if re.fullmatch(r"a\d+\.json", name))
        return [attempt for number in numbers if (attempt := self.attempt(number)) is not None]

    @property
    def numbers(self) -> set[int]:
        """Of attempts that were dealt out, and of those for which jobs have been submitted."""
        return {int(path.stem.partition("-")[0][1:]) for path in self.folder.glob("a*.json")}

    def next_number(self) -> int:
        """A number that nothing here has, and nothing at alternatives: shard files in one folder are named by it, and it says what was dealt last."""
        return max((number for each in (self, *self.alternatives) for number in each.numbers), default=-1) + 1

    def attempt(self, number: int) -> Attempt | None:
        """The attempt of that number; None where nothing has been dealt under it."""
        path = self.folder / f"a{number}.json"
        found = files.read_measured(path, Attempt)
        return self._rebuilt(number, path) if found is None and os.path.lexists(path) else found

    def _rebuilt(self, number: int, path: Path) -> Attempt:
        """The attempt whose file is damaged, as far as what lies around it tells: enough to wait for its tasks, and to end them."""
        there = {other.name for other in self.folder.glob(f"a{number}-*")}
        by_slurm = f"a{number}-jobs.json" in there
        local = any(name.endswith(".process") for name in there)
        shards = sum(name.endswith(".keys") for name in there)
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

    def deal(self, shards: Sequence[Sequence[WorkItem]], cluster: str, number: int | None = None) -> Attempt:
        """Write a new attempt down, under a reserved number where one is given; its keys first, itself last."""
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
        )
        files.write_json(self.folder / f"a{number}.json", attempt)
        return attempt

    def keys_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.keys"

    def record_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.json"

    def keys(self, number: int, shard: int) -> list[str]:
        path = self.keys_file(number, shard)
        with files.os_errors_named(path):
            return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]

    def records(self, attempt: Attempt) -> list[TaskRecord]:
        """What the tasks of `attempt` have said so far; none for a task that never started."""
        found = (self.record(attempt.number, shard) for shard in range(attempt.shards))
        return [record for record in found if record is not None]

    def record(self, number: int, shard: int) -> TaskRecord | None:
        """What the task of one shard of attempt `number` has said so far."""
        return files.read_measured(self.record_file(number, shard), TaskRecord)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, record: TaskRecord) -> Path | None:
        """What the task of `record` printed; None where it shares its driver's output."""
        return self.logs / record.log if record.log else None


def with_alternatives(run: Run, phases: Sequence[Phase], t: int) -> list[Phase]:
    """`phases`, each followed by its alternatives that have attempts or jobs in iteration t: an earlier launch did part of it in another way."""
    found: dict[str, Phase] = {}
    for phase in phases:
        alternatives = (each.phase for each in AttemptDir(run, phase, t).alternatives if each.numbers)
        for one in (phase, *alternatives):
            found.setdefault(one.name, one)
    return list(found.values())


class TaskReporter:
    """Keeps the record of the task in this process up to date, from its start to its end.

    A node that was cut off may run a task on while SLURM has started it again elsewhere: the record is the later start's then.
    """

    def __init__(self, path: Path, record: TaskRecord) -> None:
        self._path = path
        self._record = record

    def begins(self) -> None:
        """Say that the task has begun; an earlier start's record gives way."""
        files.write_json(self._path, self._record)

    @property
    def overtaken(self) -> bool:
        """Whether SLURM has started this task again in the meantime."""
        noted = files.read_measured(self._path, TaskRecord)
        return noted is not None and noted.requeues > self._record.requeues

    def done(self, loads: int, load_seconds: float = 0.0) -> None:
        """Say that all its keys have been done, and what was loaded for them."""
        self._write(outcome="done", ended=time.time(), loads=loads, load_seconds=load_seconds)

    def failed(self, error: BaseException) -> None:
        """Say why the task ends."""
        in_words = str(error) if isinstance(error, SpartaError) else None
        said = None if isinstance(error, SpartaError) and _of_this_node(error) else in_words
        why = in_words or f"{type(error).__name__}: {error}"
        self._write(outcome="failed", ended=time.time(), said=said, error=why)

    @property
    def leaves(self) -> bool:
        """Whether the task has said that it will be started again."""
        return self._record.outcome == "requeued"

    def requeued(self) -> None:
        """Say that the task leaves its node and will be started again. For signal handlers too."""
        self._write(outcome="requeued", ended=time.time())

    def _write(self, **changes: object) -> None:
        self._record = msgspec.structs.replace(self._record, **changes)
        if not self.overtaken:
            files.write_json(self._path, self._record)


def _of_this_node(error: SpartaError) -> bool:
    """Whether `error` is a disk's that may be well on another node: a stale or missing mount, say, not one that is full or forbidden."""
    cause = error.__cause__
    everywhere = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(cause, OSError) and cause.errno not in everywhere


def begin_record(
    shard: int, items: int, before: TaskRecord | None = None, last_sign: float = 0.0
) -> TaskRecord:
    """The record of a task that starts now, in this process.

    before: the record of the same task's previous start, where SLURM started it again; last_sign: when that start was last seen at work, in
    seconds since 1970, for one that could not say when it ended.
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
        gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
        log=_log_of_this_process(),
        requeues=max(before.requeues + 1 if before else 0, _restarts_of_this_process()),
        spent=before.spent + max(0.0, (before.ended or last_sign) - before.started) if before else 0.0,
    )


def _restarts_of_this_process() -> int:
    """How often SLURM has started this task again; 0 in a process that is no task of SLURM, be it part of a job."""
    return slurm_restarts() if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" else 0


def _log_of_this_process() -> str | None:
    """The name of the file that submitit has this process write to; None in a process that submitit did not start."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    import submitit

    return str(submitit.JobEnvironment().paths.stdout.name)


Watch = Callable[[float], None]
