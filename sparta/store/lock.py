"""One driver at a time: the lock of a run.

jobs/lock/ always holds exactly one baton, an empty file called "free" or "held-<token>", and <token>.json, which describes the holder. A
process takes the baton by renaming it from the name that it has examined, so of any number of processes exactly one succeeds, on local and
network disks alike, and there is a baton at every moment. Only the baton says who the holder is.

Whether a holder is alive: on the same boot of the same host (and in the same process namespace), /proc tells. Any other holder is judged by its
heartbeat: it touches its file every few seconds, and after 120 seconds without, by the file system's own clock, it counts as dead.

While it is held, the lock guards the state (guard.py): a process that has lost it cannot write into the state.
"""

import datetime
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from sparta.errors import SpartaError
from sparta.names import suggested
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs, drivers_file
from sparta.store.files import (
    explain,
    os_errors_named,
    put_tree,
    read_json,
    read_measured,
    sync,
    write_json,
)
from sparta.store.guard import Guard, put_up, take_down
from sparta.store.layout import StateDir
from sparta.store.process import machine, process_start, slurm_restarts
from sparta.store.temporaries import temporary_beside

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 120.0
_SETTLE_SECONDS = 5.0
_FREE = "free"
_HELD = "held-"


class LockClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """jobs/lock/<token>.json: who took the lock.

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
    """Who holds a run's lock. silent_seconds: time since its last heartbeat."""

    claim: LockClaim
    alive: bool
    silent_seconds: float


class LockLost(SpartaError):
    """Another driver has taken over the lock: this one must stop and must not write any more."""


class RunLock:
    """Holds the lock of `state` while the block runs.

    Entering raises SpartaError, naming the holder, where a live process holds it. A dead holder's lock is taken over, with a message to `say`.
    """

    def __init__(self, state: StateDir, say: Callable[[str], None]) -> None:
        self._state = state
        self._folder = state.lock
        self._say = say
        self._claim = _claim_of_this_process()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._guard = Guard(state.root.absolute(), state.lock.absolute(), self.check)

    @property
    def _baton(self) -> Path:
        return self._folder / f"{_HELD}{self._claim.token}"

    @property
    def _file(self) -> Path:
        return _claim_file(self._folder, self._claim.token)

    def __enter__(self) -> Self:
        with os_errors_named(self._folder):
            _make(self._folder)
            try:
                write_json(self._file, self._claim)
                self._take()
                self._clear_claims()
                self._note_driver_job(stays=True)
            except BaseException:
                # A lock without a claim would count as one that its holder died with.
                with suppress(FileNotFoundError):
                    os.rename(self._baton, self._folder / _FREE)
                self._file.unlink(missing_ok=True)
                raise
        self._stop, self._lost = threading.Event(), threading.Event()
        put_up(self._guard)
        threading.Thread(target=self._beat, args=[self._stop], name="run lock heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        take_down(self._guard)
        # A forked child also leaves the block, but the lock belongs to its parent.
        if os.getpid() != self._claim.pid:
            return
        with os_errors_named(self._folder):
            # After an interrupt the job may be requeued: it is then in the queue while nobody holds the lock, so its note stays.
            if self._baton.exists() and not (kind is not None and issubclass(kind, KeyboardInterrupt)):
                # A stale note does no harm; a lock that is not released would.
                with suppress(SpartaError):
                    self._note_driver_job(stays=False)
            try:
                os.rename(self._baton, self._folder / _FREE)
            except FileNotFoundError:
                self._say(f"The lock of {self._state.root} was no longer this process's when it ended.")
            self._file.unlink(missing_ok=True)

    def refuse_if_held(self) -> None:
        """Raises SpartaError, naming the holder, where a live process holds the lock: the same check as on entering, without writing."""
        now = holder(self._state)
        if now is not None and now.alive:
            raise self._held_by(now)

    def check(self) -> None:
        """Raises LockLost where the lock was lost. Call it before anything that must not be done twice, such as submitting jobs.

        A process loses its lock when it was suspended for minutes and a driver on another host took over.
        """
        with os_errors_named(self._folder):
            # On a network disk a renamed baton may stay visible for a while; the heartbeat contacts the server.
            lost = self._lost.is_set() or not self._baton.exists()
        if lost:
            now = holder(self._state)
            by = f" by {now.claim}" if now else ""
            raise LockLost(
                f"The lock of {self._state.root} was taken over{by}: this driver stops, watch the other one."
            )

    def _take(self) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            name = _baton_name(self._folder)
            if name is None:
                # A listing taken while the baton is renamed may show neither of its names.
                time.sleep(0.02)
                continue
            before = _holder(self._folder, name) if name != _FREE else None
            if before is not None and before.alive:
                raise self._held_by(before)
            try:
                os.rename(self._folder / name, self._baton)
            except FileNotFoundError:
                continue
            sync(self._folder)
            if name != _FREE:
                who = f"{before.claim} is no longer running" if before else "its holder left no trace"
                self._say(f"Taking over the lock of {self._state.root}: {who}.")
                _claim_file(self._folder, name.removeprefix(_HELD)).unlink(missing_ok=True)
            return
        raise SpartaError(
            f"{self._folder} does not say whether this run is being driven: {_remedy(self._folder)}."
        )

    def _clear_claims(self) -> None:
        """Remove the claims of processes that were killed before they had the lock. Only for the holder of the lock.

        A process wrongly assumed dead finds its claim gone at its next heartbeat, and counts the lock as lost.
        """
        for path in self._folder.glob("*.json"):
            silent = _silent_seconds(path)
            if path == self._file or silent is None:
                continue
            claim = read_measured(path, LockClaim)
            if not (_lives(claim, silent) if claim else silent < DEAD_AFTER_SECONDS):
                path.unlink(missing_ok=True)

    def _note_driver_job(self, stays: bool) -> None:
        """Add this driver's batch job, if it runs in one, to jobs/drivers.json, or remove it. Only for the holder of the lock."""
        if self._claim.driver_job is None:
            return
        name, cluster = os.environ.get("SLURM_JOB_NAME", ""), self._claim.slurm_cluster
        mine = DriverJob(self._claim.driver_job, name, cluster)
        others = [
            driver
            for driver in driver_jobs(self._state)
            if driver.job != mine.job or driver.cluster not in (None, cluster)
        ]
        noted = DriverJobs(str(self._state.root.absolute()), [*others, mine] if stays else others)
        write_json(drivers_file(self._state), noted)

    def _held_by(self, before: Holder) -> SpartaError:
        watch = suggested("status", self._state.root)
        if before.claim.machine == machine():
            remedy = f"wait for it, watch it with {watch}, or stop it (kill {before.claim.pid}) and try again"
        else:
            remedy = (
                f"watch it with {watch}, or stop it there; its last heartbeat was {before.silent_seconds:.0f} s "
                f"ago, after {DEAD_AFTER_SECONDS:.0f} s it counts as dead and this command takes over"
            )
        return SpartaError(
            f"{self._state.root} is being driven by {before.claim}, {before.claim.command!r}: {remedy}."
        )

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._file)
            except FileNotFoundError:
                self._lost.set()  # taken over; `check` raises in the driver
                return
            except OSError as error:
                self._say(f"The heartbeat of the lock failed, trying again: {explain(error, self._file)}")


def holder(state: StateDir) -> Holder | None:
    """The holder of the lock of `state`, alive or not; None where it is free. Leaves nothing behind and needs no write permission."""
    with os_errors_named(state.lock):
        name = _baton_name(state.lock) if state.lock.is_dir() else None
        return None if name is None or name == _FREE else _holder(state.lock, name)


def _make(folder: Path) -> None:
    """Create `folder` with a free baton, atomically. Does nothing where it exists (a folder that is not empty is never replaced)."""
    put_tree(folder, lambda made: (made / _FREE).touch())


def _baton_name(folder: Path) -> str | None:
    return next((name for name in os.listdir(folder) if name == _FREE or name.startswith(_HELD)), None)


def _claim_file(folder: Path, token: str) -> Path:
    return folder / f"{token}.json"


def _holder(folder: Path, baton: str) -> Holder | None:
    """The holder of `baton`; None where its claim is gone because it has just released or lost the lock."""
    path = _claim_file(folder, baton.removeprefix(_HELD))
    silent = _silent_seconds(path)
    if silent is None:
        return None
    try:
        claim = read_json(path, LockClaim, _remedy(folder))
    except SpartaError:
        if path.exists():
            raise
        return None
    return Holder(claim, _lives(claim, silent), silent)


def _remedy(folder: Path) -> str:
    return f"make sure that no other driver runs on {folder.parent.parent}, delete {folder} and run the same command again"


def _silent_seconds(claim_file: Path) -> float | None:
    """How long nobody has touched it; None where it is gone."""
    try:
        touched = claim_file.stat().st_mtime
    except FileNotFoundError:
        return None
    return max(0.0, _now(claim_file.parent) - touched)


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


def _lives(claim: LockClaim, silent: float) -> bool:
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


def _claim_of_this_process() -> LockClaim:
    job = os.environ.get("SLURM_JOB_ID")
    return LockClaim(
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
