"""Names for what is being written and not yet in its place, and what becomes of it where its writer was killed.

.NAME.<machine>-<pid>-<random>.tmp lies beside NAME. The name tells the writer, so that what a dead one left can be removed while another
process writes the same file.
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
"""What a process of another machine writes counts as abandoned when nothing of it has changed for so long."""

_WRITER = r"(?:(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}|[0-9a-f]{16})"
"""Sixteen digits alone: of version 0.1.0, which told no writer."""
_TEMPORARY = re.compile(rf"\..+\.{_WRITER}\.tmp", re.DOTALL)


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that no other process uses."""
    return path.with_name(f".{path.name[:100]}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether `name` is that of a file or folder that is being written, or whose writer was killed before renaming it."""
    return name.startswith(".") and name.endswith(".tmp")


def abandoned_of(path: Path) -> list[Path]:
    """What killed writers of `path` have left, and not those of a longer name."""
    name = re.compile(rf"\.{re.escape(path.name[:100])}\.{_WRITER}\.tmp")
    return [other for other in path.parent.iterdir() if name.fullmatch(other.name) and is_abandoned(other)]


def is_abandoned(path: Path) -> bool:
    """Whether `path` is a temporary file or folder, and the process that wrote it is gone, as far as can be told from here."""
    name = _TEMPORARY.fullmatch(path.name)
    if name is None:
        return False
    if name["pid"] is None or (name["machine"] == _machine() and not runs(int(name["pid"]))):
        return True
    return time.time() - _last_change(path) > ABANDONED_AFTER_SECONDS


def _last_change(path: Path) -> float:
    """When anything of the file or folder was written last; now where it has just gone."""
    try:
        inside: Iterable[Path] = path.rglob("*") if path.is_dir() else ()
        return max(each.lstat().st_mtime for each in (path, *inside))
    except FileNotFoundError:
        return time.time()


@cache
def _machine() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]
