"""A file system that fails: what this process does to files below one folder is numbered, and one passage goes wrong.

It stands between Python and the system calls: the functions of `os` that take a path or a descriptor, and `open`. What compiled libraries do
by themselves is not seen. Nothing of the suite is imported here: `site/sitecustomize.py` installs it in processes that a command starts.

A passage is one call. A door is what passages have in common: the operation, the kind of file (its name without numbers) and the function of the
suite that calls.
"""

import builtins
import errno
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

SUITE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "sparta", ""
)
ERRORS = {name: getattr(errno, name) for name in ("ESTALE", "EIO", "EACCES", "ENOSPC", "EDQUOT")}
KINDS = (*ERRORS, "short", "twice", "kill before", "kill inside", "kill after", "late")
FULL = ("ENOSPC", "EDQUOT")
WALKS = ("error", "kill", "twice", "short")
"""Kinds of fault that come once at every door. `error`: one of ERRORS, each at its share of the doors; `kill`: inside a write, before any other change."""
LOOKS = ("stat", "lstat", "listdir", "scandir", "readlink", "open")
"""Operations that do not find what is not seen yet."""
THIRDS = 3
TAKES_ROOM = ("create", "write", "fsync", "close", "mkdir", "replace", "rename", "link")
CHANGES = (
    "create",
    "write",
    "truncate",
    "mkdir",
    "unlink",
    "rmdir",
    "replace",
    "rename",
    "link",
    "symlink",
    "chmod",
    "utime",
)
"""Operations that change what others find. A kill between two of them leaves what a kill before the second one leaves."""
REPEATED = ("create new", "mkdir", "unlink", "rmdir", "replace", "rename", "link", "symlink")
"""Operations that a network disk may do a second time, because its first answer was lost; the second answer is an error."""

Note = Callable[[str, str, str], None]
"""Told of every passage: operation, path and door."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at passage `at` below `folder`; 0: nothing.

    kind: an error of the system; `short`: half of the bytes are read or written; `kill before`, `kill inside` (a write comes half) or
    `kill after` it; `twice`: it is done again, and the second answer is the one that comes; `late`: for `seconds` from its start the process does not see what others have made in the last minute, all of it (`at` is 0) or one of
    THIRDS of all names. lasts: an error
    stays until the process ends. role: of the processes that a command starts, only `task` or `driver` ones; marker: a file that the first
    of them makes, so that the fault comes once, and that tells that it came. doors: a file of doors, one a line; if there is one, the fault, of
    WALKS, comes at the first passage of every door that is not in it, and puts the door there.
    """

    folder: str
    kind: str = ""
    at: int = 0
    lasts: bool = False
    seconds: float = 1.0
    role: str = ""
    marker: str = ""
    doors: str = ""

    def __str__(self) -> str:
        if self.kind == "late":
            return f"late for {self.seconds} s" + f" in part {self.at}" * (self.at > 0)
        what = f"{self.kind} at {self.at}"
        return what + " and on" * self.lasts + f" in a {self.role}" * bool(self.role)

    def applies(self, operation: str) -> bool:
        """Whether it can come to a passage that does `operation`."""
        if self.kind in FULL:
            return _plain(operation) in TAKES_ROOM
        if self.kind == "short":
            return operation in ("read", "write")
        if self.kind == "twice":
            return operation in REPEATED
        if self.kind == "kill":
            return _plain(operation) in CHANGES
        return self.kind != "kill inside" or operation == "write"

    def at_door(self, door: str, operation: str) -> str:
        """The kind of a fault of WALKS at `door`, where `operation` is done."""
        if self.kind == "kill":
            return "kill inside" if operation == "write" else "kill before"
        if self.kind == "error":
            fitting = [name for name in ERRORS if name not in FULL or _plain(operation) in TAKES_ROOM]
            return fitting[crc32(door.encode()) % len(fitting)]
        return self.kind


def _plain(operation: str) -> str:
    return operation.removesuffix(" new")


def alike(path: str) -> str:
    """The name of the file without what tells it from others of its kind: numbers and random names."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", os.path.basename(path))


def _calling() -> str:
    """The innermost function of the suite that is at work, with its module; that of a library if there is none."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(SUITE):
            module = frame.f_code.co_filename.removeprefix(SUITE).removesuffix(".py")
            return f"{module}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "a library"


class Shim:
    """Counts passages, and lets one of them fail."""

    def __init__(self, fault: Fault, note: Note | None) -> None:
        self.fault, self._note = fault, note
        self.passed = 0
        self._root = os.path.abspath(fault.folder)
        self._paths: dict[int, str] = {}
        self._began = time.time()
        self._half_then_killed = fault.kind == "kill inside"
        self._passed_doors = _lines_of(fault.doors)
        self._seen: set[str] = set()
        self._moved: tuple[str, ...] = ()

    def below(self, path: Any, folder: int | None = None) -> str | None:
        """`path`, or what a descriptor is open for, where it lies below the folder; else None. folder: a descriptor that it is relative to."""
        if isinstance(path, int):
            return self._paths.get(path)
        name = os.fsdecode(path)
        if folder is not None:
            if folder not in self._paths:
                return None
            name = os.path.join(self._paths[folder], name)
        name = os.path.abspath(name)
        return name if name == self._root or name.startswith(self._root + os.sep) else None

    def opened(self, descriptor: int, path: str) -> None:
        self._paths[descriptor] = path

    def closed(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)

    def enter(self, operation: str, path: str) -> str:
        """A passage begins. `short` if it is to come half, `twice` if it is to be done again; raises, or ends the process, where the fault says so."""
        fault = self.fault
        self.passed += 1
        door = f"{_plain(operation)} {alike(path)} {_calling()}" if self._note or fault.doors else ""
        if self._note:
            self._note(operation, path, door)
        if fault.kind == "late":
            if operation in LOOKS and self.hides(path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return ""
        if fault.doors:
            if door in self._passed_doors or not fault.applies(operation):
                return ""
            self._passed_doors.add(door)
            note = REAL["open"](fault.doors, os.O_WRONLY | os.O_APPEND)
            REAL["write"](note, f"{door}\n".encode())
            REAL["close"](note)
            return self._fails(fault.at_door(door, operation), path)
        here = self.passed == fault.at or (fault.lasts and self.passed > fault.at > 0)
        if not here or fault.kind == "kill after" or not fault.applies(operation) or not self._first():
            return ""
        return self._fails(fault.kind, path)

    def _fails(self, kind: str, path: str) -> str:
        if kind in ERRORS:
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), path)
        if kind == "kill before":
            die()
        self._half_then_killed = kind == "kill inside"
        return "twice" if kind == "twice" else "short"

    def leave(self, path: str, half: bool = False) -> None:
        """A passage is over; the process knows of `path` now. half: it came half."""
        self._seen.add(path)
        if half and self._half_then_killed:
            die()
        if self.fault.kind == "kill after" and self.passed == self.fault.at and self._first():
            die()

    def moved(self, path: str) -> None:
        """The process has put a folder at `path`, and knows what is in it."""
        self._moved += (path + os.sep,)

    def hides(self, path: str) -> bool:
        """Whether another process has just made `path`, and this one does not see it yet."""
        if self.fault.kind != "late" or path in self._seen or path == self._root:
            return False
        if f"{path}{os.sep}".startswith(self._moved):
            return False
        if time.time() - self._began > self.fault.seconds:
            return False
        if self.fault.at not in (0, 1 + crc32(path[len(self._root) :].encode()) % THIRDS):
            return False
        try:
            made = REAL["lstat"](path).st_ctime
        except OSError:
            return False
        hidden = bool(made > self._began - 60)
        if hidden:
            self._first()
        return hidden

    def _first(self) -> bool:
        """Whether the fault is to come now: once, in one of the processes that have it, where it does not last. Leaves the marker."""
        if not self.fault.marker:
            return True
        try:
            os.close(REAL["open"](self.fault.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return self.fault.lasts
        return True


def _lines_of(path: str) -> set[str]:
    if not path:
        return set()
    with _real_open(path) as file:
        return set(file.read().splitlines())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


REAL: dict[str, Any] = {
    name: getattr(os, name)
    for name in (
        "open", "close", "read", "pread", "write", "sendfile", "fsync", "ftruncate", "replace", "rename", "mkdir", "unlink", "remove",
        "rmdir", "utime", "stat", "fstat", "lstat", "listdir", "scandir", "readlink", "chmod", "link", "symlink",
    )
}  # fmt: skip
_real_open, _RealFile = io.open, io.FileIO


class _Listing:
    """What os.scandir gives, less what is not seen yet."""

    def __init__(self, shim: Shim, entries: Any, path: str) -> None:
        self._entries, self._shim, self._path = entries, shim, path

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while self._shim.hides(os.path.join(self._path, (entry := next(self._entries)).name)):
            pass
        return entry

    def __enter__(self) -> "_Listing":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries.close()


def install(fault: Fault, note: Note | None = None) -> Shim:
    """From now on this process has the fault."""
    shim = Shim(fault, note)
    for name, operation in (
        ("mkdir", "mkdir"), ("unlink", "unlink"), ("remove", "unlink"), ("rmdir", "rmdir"), ("utime", "utime"), ("stat", "stat"),
        ("lstat", "lstat"), ("listdir", "listdir"), ("scandir", "scandir"), ("readlink", "readlink"), ("chmod", "chmod"),
    ):  # fmt: skip
        setattr(os, name, _on_path(shim, REAL[name], operation))
    for name in ("replace", "rename", "link", "symlink"):
        setattr(os, name, _on_two_paths(shim, REAL[name], name))
    for name, operation in (("fsync", "fsync"), ("fstat", "fstat"), ("ftruncate", "truncate")):
        setattr(os, name, _on_descriptor(shim, REAL[name], operation))
    _on_bytes(shim)
    _on_files(shim)
    return shim


def _on_path(shim: Shim, real: Any, operation: str) -> Any:
    def patched(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        where = shim.below(path, kwargs.get("dir_fd"))
        if where is None:
            return real(path, *args, **kwargs)
        how = shim.enter(operation, where)
        try:
            result = real(path, *args, **kwargs)
            if how == "twice":
                real(path, *args, **kwargs)
        except FileExistsError:
            shim.leave(where)
            raise
        shim.leave(where)
        if operation == "listdir":
            return [entry for entry in result if not shim.hides(os.path.join(where, entry))]
        return _Listing(shim, result, where) if operation == "scandir" else result

    return patched


def _on_two_paths(shim: Shim, real: Any, operation: str) -> Any:
    def patched(source: Any, target: Any, **kwargs: Any) -> None:
        where = shim.below(target)
        if where is None:
            real(source, target, **kwargs)
            return
        how = shim.enter(operation, where)
        real(source, target, **kwargs)
        shim.moved(where)
        if how == "twice":
            real(source, target, **kwargs)
        shim.leave(where)

    return patched


def _on_descriptor(shim: Shim, real: Any, operation: str) -> Any:
    def patched(descriptor: Any, *args: Any) -> Any:
        where = shim.below(descriptor) if isinstance(descriptor, int) else None
        if where is None:
            return real(descriptor, *args)
        shim.enter(operation, where)
        result = real(descriptor, *args)
        shim.leave(where)
        return result

    return patched


def _on_bytes(shim: Shim) -> None:
    """Reading and writing through descriptors."""

    def write(descriptor: int, data: Any) -> int:
        where = shim.below(descriptor)
        if where is None:
            return int(REAL["write"](descriptor, data))
        half = bool(shim.enter("write", where))
        written = int(REAL["write"](descriptor, data[: max(1, len(data) // 2)] if half else data))
        shim.leave(where, half)
        return written

    def sendfile(out: int, source: int, offset: Any, count: int, *rest: Any) -> int:
        where = shim.below(out)
        if where is None:
            return int(REAL["sendfile"](out, source, offset, count, *rest))
        half = bool(shim.enter("write", where))
        size = max(1, min(count, REAL["fstat"](source).st_size) // 2) if half else count
        sent = int(REAL["sendfile"](out, source, offset, size, *rest))
        shim.leave(where, half)
        return sent

    def reading(name: str) -> Any:
        def patched(descriptor: int, count: int, *rest: Any) -> Any:
            where = shim.below(descriptor)
            if where is None:
                return REAL[name](descriptor, count, *rest)
            half = bool(shim.enter("read", where))
            result = REAL[name](descriptor, max(1, count // 2) if half else count, *rest)
            shim.leave(where, half)
            return result

        return patched

    def close(descriptor: int) -> None:
        where = shim.below(descriptor)
        shim.closed(descriptor)
        # It is closed all the same, as by the system.
        REAL["close"](descriptor)
        if where is not None:
            shim.enter("close", where)
            shim.leave(where)

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = shim.below(path, dir_fd)
        if where is None:
            return int(REAL["open"](path, flags, mode, dir_fd=dir_fd))
        making = "create new" if flags & os.O_EXCL else "create"
        how = shim.enter(making if flags & os.O_CREAT else "open", where)
        descriptor = int(REAL["open"](path, flags, mode, dir_fd=dir_fd))
        if how == "twice":
            REAL["close"](descriptor)
            descriptor = int(REAL["open"](path, flags, mode, dir_fd=dir_fd))
        shim.opened(descriptor, where)
        shim.leave(where)
        return descriptor

    os.write, os.close, os.open = write, close, open_  # type: ignore[assignment]
    os.sendfile = sendfile  # type: ignore[assignment]
    os.read, os.pread = reading("read"), reading("pread")


def _on_files(shim: Shim) -> None:
    """`open`, and the files that it gives."""

    class File(_RealFile):
        def __init__(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
            self.where = shim.below(file)
            if self.where is not None and not isinstance(file, int):
                making = "create new" if mode[0] == "x" else "create"
                how = shim.enter(making if mode[0] in "wax" else "open", self.where)
                if how == "twice":
                    _RealFile(file, mode, *args, **kwargs).close()
            super().__init__(file, mode, *args, **kwargs)
            if self.where is not None:
                shim.opened(self.fileno(), self.where)
                shim.leave(self.where)

        def write(self, data: Any) -> int:
            if self.where is None:
                return super().write(data)
            half = bool(shim.enter("write", self.where))
            written = super().write(memoryview(data)[: max(1, len(data) // 2)] if half else data)
            shim.leave(self.where, half)
            return written

        def readinto(self, buffer: Any) -> int:
            if self.where is None:
                return super().readinto(buffer)
            half = bool(shim.enter("read", self.where))
            count = super().readinto(memoryview(buffer)[: max(1, len(buffer) // 2)] if half else buffer)
            shim.leave(self.where, half)
            return count

        def readall(self) -> bytes:
            if self.where is None:
                return super().readall()
            shim.enter("read", self.where)
            content = super().readall()
            shim.leave(self.where)
            return content

        def close(self) -> None:
            where = None if self.closed else self.where
            if where is not None:
                shim.closed(self.fileno())
            super().close()
            if where is not None:
                shim.enter("close", where)
                shim.leave(where)

    def open_(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if isinstance(file, int) or shim.below(file) is None:
            return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffered: Any
        if "+" in mode:
            buffered = io.BufferedRandom(raw, size)
        else:
            buffered = io.BufferedReader(raw, size) if mode[0] == "r" else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    io.FileIO = File  # type: ignore[misc]
    io.open = builtins.open = open_
