"""Attempts: what was dealt to which task, on disk before anything starts, and what became of each task.

jobs/<place>/a0.json is the attempt, a0-00003.keys the keys of its shard 3, a0-00003.json what that task says of itself. The rows remain the
truth about what is done; these files say who is on it, what it cost and why it failed.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from sparta.phases.base import Phase, WorkItem
from sparta.store import files
from sparta.store.process import ProcessId, identify, lives, machine
from sparta.store.run import Run


class Attempt(msgspec.Struct, frozen=True):
    """One dealing of a phase's missing keys. cluster: the launcher that has it. submitted: seconds since 1970."""

    phase: str
    t: int
    number: int
    cluster: str
    shards: int
    items: int
    submitted: float


class TaskRecord(msgspec.Struct, frozen=True):
    """What a task says of itself. said: the sentence of an error that trying again cannot mend."""

    shard: int
    process: ProcessId
    host: str
    started: float
    items: int
    ended: float | None = None
    outcome: Literal["running", "done", "failed"] = "running"
    said: str | None = None
    error: str | None = None
    loads: int = 0

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

    def all(self) -> list[Attempt]:
        """Attempts so far, oldest first."""
        found = [
            files.read_json(path, Attempt) for path in self.folder.glob("a*.json") if "-" not in path.name
        ]
        return sorted(found, key=lambda attempt: attempt.number)

    def deal(self, shards: Sequence[Sequence[WorkItem]], cluster: str) -> Attempt:
        """Write a new attempt down; its keys first, itself last."""
        number = max((attempt.number for attempt in self.all()), default=-1) + 1
        for shard, items in enumerate(shards):
            files.write_bytes(
                self.keys_file(number, shard), "".join(f"{item.key}\n" for item in items).encode()
            )
        attempt = Attempt(
            self.phase.name, self.t, number, cluster, len(shards), sum(map(len, shards)), time.time()
        )
        files.write_json(self.folder / f"a{number}.json", attempt)
        return attempt

    def keys_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.keys"

    def record_file(self, number: int, shard: int) -> Path:
        return self.folder / f"a{number}-{shard:05d}.json"

    def keys(self, number: int, shard: int) -> list[str]:
        return self.keys_file(number, shard).read_text(encoding="utf-8").split("\n")[:-1]

    def records(self, attempt: Attempt) -> list[TaskRecord]:
        """What the tasks of `attempt` have said so far; none for a task that never started."""
        found = (self.record(attempt, shard) for shard in range(attempt.shards))
        return [record for record in found if record is not None]

    def record(self, attempt: Attempt, shard: int) -> TaskRecord | None:
        """What the task of one shard has said so far."""
        path = self.record_file(attempt.number, shard)
        return files.read_json(path, TaskRecord) if path.is_file() else None

    @property
    def logs(self) -> Path:
        return self.folder / "logs"


def begin_record(shard: int, items: int) -> TaskRecord:
    """The record of a task that starts now, in this process."""
    return TaskRecord(
        shard=shard,
        process=identify(os.getpid()),
        host=socket.gethostname(),
        started=time.time(),
        items=items,
    )


Watch = Callable[[float], None]
