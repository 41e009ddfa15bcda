"""The baton that one process of a cluster holds: the mechanism below the lock of a run (lock.py) and below leases (lease.py).

A folder always holds exactly one baton, an empty file called "free" or "held-<token>", and <token>.json, which describes the holder. A process
takes the baton by renaming it from the name that it has examined, so of any number of processes exactly one succeeds, on local and network disks
alike, and there is a baton at every moment. Only the baton says who the holder is.

Whether a holder is alive: on the same boot of the same host (and in the same process namespace), /proc tells. Any other holder is judged by its
heartbeat: it touches its file every few seconds, and after 120 seconds without, by the file system's own clock, it counts as dead.
"""

import datetime
import os
import shlex
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.store.files import put_tree, read_json
from sparta.store.process import machine, process_start, slurm_restarts
from sparta.store.temporaries import temporary_beside

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 120.0
FREE = "free"
HELD = "held-"


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """<token>.json: who took the baton.

    process_start: clock ticks from boot to the process's start, which tells apart two processes with one pid; None without /proc. machine: boot
    id and process namespace; processes of another `machine` cannot be checked here. slurm_restarts: how often SLURM had requeued the job by
    then. driver_job: the job's id if it is a batch job of slurm/, which exists only for this driver; None for a driver that a person started,
    even inside an allocation. slurm_cluster: the cluster of the job, because another cluster may use the same id.
    """

    token: str
    pid: int
    host: str
    machine: str
    process_start: int | None
    started: str
    command: str
    slurm_job_id: str | None
    slurm_restarts: int = 0
    driver_job: str | None = None
    slurm_cluster: str | None = None

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job_id}" if self.slurm_job_id else ""
        return f"process {self.pid} on {self.host} (since {self.started}{job})"


@dataclass(frozen=True)
class Holder:
    """Who holds a baton. silent_seconds: time since its last heartbeat."""

    claim: Claim
    alive: bool
    silent_seconds: float


def make(folder: Path) -> None:
    """Create `folder` with a free baton, atomically. Does nothing where it exists (a folder that is not empty is never replaced)."""
    put_tree(folder, lambda made: (made / FREE).touch())


def baton_name(folder: Path) -> str | None:
    return next((name for name in os.listdir(folder) if name == FREE or name.startswith(HELD)), None)


def claim_file(folder: Path, token: str) -> Path:
    return folder / f"{token}.json"


def holder_of(folder: Path, baton: str, remedy: str) -> Holder | None:
    """The holder of `baton`; None where its claim is gone because it has just released or lost it."""
    path = claim_file(folder, baton.removeprefix(HELD))
    silent = silent_seconds(path)
    if silent is None:
        return None
    try:
        claim = read_json(path, Claim, remedy)
    except SpartaError:
        if path.exists():
            raise
        return None
    return Holder(claim, lives(claim, silent), silent)


def silent_seconds(claim: Path) -> float | None:
    """How long nobody has touched it; None where it is gone."""
    try:
        touched = claim.stat().st_mtime
    except FileNotFoundError:
        return None
    return max(0.0, _now(claim.parent) - touched)


def _now(folder: Path) -> float:
    """The time by the clock that stamps files in `folder`, which may be a server's; the local time where the folder is not writable."""
    probe = temporary_beside(folder / "clock")
    try:
        probe.touch(exist_ok=False)
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now


def lives(claim: Claim, silent: float) -> bool:
    job = (os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_CLUSTER_NAME"))
    ours = claim.slurm_job_id is not None and job == (claim.slurm_job_id, claim.slurm_cluster or job[1])
    if ours and claim.slurm_restarts < slurm_restarts():
        # An earlier start of this job, perhaps on a node that is gone: SLURM has ended it.
        return False
    if claim.machine == machine():
        try:
            os.kill(claim.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process: /proc may hide it (hidepid), and then the heartbeat decides
        else:
            if claim.process_start is None:
                return True
        start = process_start(claim.pid)
        if start is not None:
            return start == claim.process_start
    return silent < DEAD_AFTER_SECONDS


def claim_of_this_process() -> Claim:
    job = os.environ.get("SLURM_JOB_ID")
    return Claim(
        token=os.urandom(8).hex(),
        pid=os.getpid(),
        host=socket.gethostname(),
        machine=machine(),
        process_start=process_start(os.getpid()),
        started=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        command=shlex.join(sys.argv),
        slurm_job_id=job,
        slurm_restarts=slurm_restarts(),
        # A job started inside the job, such as an interactive one, inherits the variable, but it does not apply to it.
        driver_job=job if os.environ.get("SPARTA_DRIVER_JOB") == job else None,
        slurm_cluster=os.environ.get("SLURM_CLUSTER_NAME") if job is not None else None,
    )
