"""One driver at a time: the lock of a run. jobs/lock/ holds the baton of the run, see baton.py.

While it is held, the lock guards the state (guard.py): a process that has lost it cannot write into the state.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sparta.errors import SpartaError
from sparta.names import suggested
from sparta.store.baton import (
    DEAD_AFTER_SECONDS,
    FREE,
    HEARTBEAT_SECONDS,
    HELD,
    Claim,
    Holder,
    baton_name,
    claim_file,
    claim_of_this_process,
    holder_of,
    lives,
    make,
    silent_seconds,
)
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs, drivers_file
from sparta.store.files import explain, os_errors_named, read_measured, sync, write_json
from sparta.store.guard import Guard, put_up, take_down
from sparta.store.layout import StateDir
from sparta.store.process import machine

_SETTLE_SECONDS = 5.0


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
        self._claim = claim_of_this_process()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._guard = Guard(state.root.absolute(), state.lock.absolute(), self.check)

    @property
    def _baton(self) -> Path:
        return self._folder / f"{HELD}{self._claim.token}"

    @property
    def _file(self) -> Path:
        return claim_file(self._folder, self._claim.token)

    def __enter__(self) -> Self:
        with os_errors_named(self._folder):
            make(self._folder)
            try:
                write_json(self._file, self._claim)
                self._take()
                self._clear_claims()
                self._note_driver_job(stays=True)
            except BaseException:
                # A lock without a claim would count as one that its holder died with.
                with suppress(FileNotFoundError):
                    os.rename(self._baton, self._folder / FREE)
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
                os.rename(self._baton, self._folder / FREE)
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
            name = baton_name(self._folder)
            if name is None:
                # A listing taken while the baton is renamed may show neither of its names.
                time.sleep(0.02)
                continue
            before = holder_of(self._folder, name, _remedy(self._folder)) if name != FREE else None
            if before is not None and before.alive:
                raise self._held_by(before)
            try:
                os.rename(self._folder / name, self._baton)
            except FileNotFoundError:
                continue
            sync(self._folder)
            if name != FREE:
                who = f"{before.claim} is no longer running" if before else "its holder left no trace"
                self._say(f"Taking over the lock of {self._state.root}: {who}.")
                claim_file(self._folder, name.removeprefix(HELD)).unlink(missing_ok=True)
            return
        raise SpartaError(
            f"{self._folder} does not say whether this run is being driven: {_remedy(self._folder)}."
        )

    def _clear_claims(self) -> None:
        """Remove the claims of processes that were killed before they had the lock. Only for the holder of the lock.

        A process wrongly assumed dead finds its claim gone at its next heartbeat, and counts the lock as lost.
        """
        for path in self._folder.glob("*.json"):
            silent = silent_seconds(path)
            if path == self._file or silent is None:
                continue
            claim = read_measured(path, Claim)
            if not (lives(claim, silent) if claim else silent < DEAD_AFTER_SECONDS):
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
        name = baton_name(state.lock) if state.lock.is_dir() else None
        return None if name is None or name == FREE else holder_of(state.lock, name, _remedy(state.lock))


def _remedy(folder: Path) -> str:
    return f"make sure that no other driver runs on {folder.parent.parent}, delete {folder} and run the same command again"
