"""Which committed files were read and found right, so that a launch does not read the whole history of its run again: jobs/proved.json.

A file counts as proved while its size, its times of change and its inode are what they were when it was read. A change of its bytes, also one
that restores the modification time, changes one of them; decay of the disk does not, which `jobs/verify.py` finds because it reads everything.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.store import files
from sparta.store.disk import os_errors_named
from sparta.store.layout import StateDir
from sparta.store.shards import RowsEntry, shard_files

_SETTLED_SECONDS = 3.0
"""A file that changed more recently may change again without a later time: clocks of network disks are coarse."""

_Signature = tuple[tuple[str, int, int, int, int], ...]


class FileProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file, or the shards of a folder, was compared with, and how it was on the disk: name, size, times in ns, inode of each file."""

    entry: str
    signature: _Signature


class ProvedFiles(msgspec.Struct, frozen=True):
    """jobs/proved.json: by path relative to the state."""

    files: dict[str, FileProof] = {}


class Proved:
    """The files of a run that are proved. Nothing depends on it: without it, or with a damaged one, everything is read again."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        found = files.read_measured(_file(state), ProvedFiles)
        self._known = dict(found.files) if found else {}
        self._fresh = False

    def holds(self, path: Path, entry: msgspec.Struct) -> bool:
        """Whether `path`, a file or a folder of shards, was as `entry` says when it was read, and has not been touched since."""
        proof = self._known.get(self._name(path))
        return (
            proof is not None and proof.entry == _digest(entry) and proof.signature == _signature(path, entry)
        )

    @contextmanager
    def proving(self, path: Path, entry: msgspec.Struct) -> Iterator[None]:
        """A block that reads `path` and raises if it is not as `entry` says; otherwise it is proved, unless it changed in between or just before."""
        before = _signature(path, entry)
        yield
        newest = max((time_ns for _, _, *times, _ in before for time_ns in times), default=0)
        if before == _signature(path, entry) and time.time() - newest / 1e9 > _SETTLED_SECONDS:
            self._known[self._name(path)] = FileProof(_digest(entry), before)
            self._fresh = True

    def save(self) -> None:
        """Write what is new, where the state can be written."""
        if not self._fresh:
            return
        try:
            files.write_json(_file(self._state), ProvedFiles(self._known))
        except SpartaError:
            # A full or read-only disk: the next launch reads the files again.
            return
        self._fresh = False

    def _name(self, path: Path) -> str:
        return path.relative_to(self._state.root).as_posix()


def _file(state: StateDir) -> Path:
    return state.jobs / "proved.json"


def _digest(entry: msgspec.Struct) -> str:
    return hashlib.sha256(msgspec.json.encode(entry, order="sorted")).hexdigest()


def _signature(path: Path, entry: msgspec.Struct) -> _Signature:
    found = []
    with os_errors_named(path):
        for each in shard_files(path) if isinstance(entry, RowsEntry) else [path]:
            try:
                stat = each.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found.append((each.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return tuple(found)
