"""Work that one process does for all others, on any machine that shares the folder: whoever takes its baton does it.

Unlike the lock of a run, a lease guards nothing: at worst two processes do the same work.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from sparta.store.baton import (
    FREE,
    HEARTBEAT_SECONDS,
    HELD,
    Claim,
    Holder,
    baton_name,
    claim_file,
    claim_of_this_process,
    holder_of,
    make,
)
from sparta.store.files import os_errors_named, write_json


class Lease:
    """A baton held by this process until `release`. A thread keeps its heartbeat."""

    def __init__(self, folder: Path, claim: Claim) -> None:
        self._baton, self._free = folder / f"{HELD}{claim.token}", folder / FREE
        self._claim = claim_file(folder, claim.token)
        self._stop = threading.Event()
        threading.Thread(target=self._beat, name="lease heartbeat", daemon=True).start()

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """The lease of `folder`, which is made if necessary; None if another process holds it and is alive, or took it at the same moment.

        Raises SpartaError on a disk error.
        """
        with os_errors_named(folder):
            make(folder)
            name = baton_name(folder)
            if name is None or (name != FREE and (before := lease_holder(folder)) and before.alive):
                return None
            claim = claim_of_this_process()
            path = claim_file(folder, claim.token)
            try:
                write_json(path, claim)
                os.rename(folder / name, folder / f"{HELD}{claim.token}")
            except BaseException as error:
                path.unlink(missing_ok=True)
                if isinstance(error, FileNotFoundError):
                    return None
                raise
            if name != FREE:
                claim_file(folder, name.removeprefix(HELD)).unlink(missing_ok=True)
            return cls(folder, claim)

    def release(self) -> None:
        """Let others take it. Does nothing if another process has taken it, because it assumed this one dead."""
        self._stop.set()
        with suppress(FileNotFoundError):
            os.rename(self._baton, self._free)
        self._claim.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A missing claim was cleared by whoever took the lease; a failing disk may recover before the lease counts as dead.
            with suppress(OSError):
                os.utime(self._claim)


def lease_holder(folder: Path) -> Holder | None:
    """The holder of the lease of `folder`, alive or not; None if it is free. Raises SpartaError on a disk error."""
    with os_errors_named(folder):
        name = baton_name(folder)
        return None if name in (None, FREE) else holder_of(folder, str(name), f"delete {folder}")
