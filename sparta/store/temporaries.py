"""Names of temporary files and folders, and how to find those of killed writers.

.NAME.<machine>-<pid>-<random>.tmp is beside NAME. The name identifies the writer, so files of a dead writer can be removed while another process
writes the same file.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sparta.store.process import machine, runs

ABANDONED_AFTER_SECONDS = 3600.0
"""A temporary file of another machine counts as abandoned when it has not changed for this long."""

_WRITER = r"(?:(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}|[0-9a-f]{16})"
"""Sixteen digits only: written by version 0.1.0, which did not name the writer."""
_TEMPORARY = re.compile(rf"\..+\.{_WRITER}\.tmp", re.DOTALL)


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that no other process uses."""
    return path.with_name(f".{path.name[:100]}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether `name` is that of a temporary file or folder, being written or abandoned."""
    return name.startswith(".") and name.endswith(".tmp")


def abandoned_of(path: Path) -> list[Path]:
    """Temporary files of killed writers of exactly `path`."""
    name = re.compile(rf"\.{re.escape(path.name[:100])}\.{_WRITER}\.tmp")
    return [other for other in path.parent.iterdir() if name.fullmatch(other.name) and is_abandoned(other)]


def is_abandoned(path: Path) -> bool:
    """Whether `path` is a temporary file or folder whose writer is gone, as far as this machine can tell."""
    name = _TEMPORARY.fullmatch(path.name)
    if name is None:
        return False
    if name["pid"] is None or (name["machine"] == _machine() and not runs(int(name["pid"]))):
        return True
    return time.time() - _last_change(path) > ABANDONED_AFTER_SECONDS


def _last_change(path: Path) -> float:
    """When the file, or anything in the folder, was last modified; now where it has just disappeared."""
    try:
        inside: Iterable[Path] = path.rglob("*") if path.is_dir() else ()
        return max(each.lstat().st_mtime for each in (path, *inside))
    except FileNotFoundError:
        return time.time()


@cache
def _machine() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]
