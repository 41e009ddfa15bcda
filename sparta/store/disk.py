"""File system errors as clear messages, and checks that a path of the state is a regular file."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparta.errors import SpartaError
from sparta.store.temporaries import is_temporary

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_LOST = (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.EREMOTEIO)
_ELSEWHERE = (FileExistsError, IsADirectoryError, NotADirectoryError)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def explain(error: OSError, path: Path) -> SpartaError:
    """The message for an error of the file system at `path`."""
    if error.errno in _FULL:
        return SpartaError(
            f"The disk or quota that holds {path} is full: free space and run the same command again, "
            "nothing committed is lost."
        )
    if error.errno in _FORBIDDEN:
        return SpartaError(
            f"{path} may not be read or written by this user ({error.strerror}): correct its owner or permissions, "
            "or choose another --state, and run the same command again."
        )
    if error.errno == errno.ENOENT:
        return SpartaError(
            f"{path} is missing: restore it from a copy, or run the command that makes it again."
        )
    if error.errno in _LOST:
        return SpartaError(
            f"The network disk that holds {path} did not answer ({error.strerror}): run the same command again when it does, "
            "nothing committed is lost."
        )
    if isinstance(error, _ELSEWHERE) and os.path.lexists(path):
        return SpartaError(
            f"{path} is {_kind(path)}, and something else belongs there ({error.strerror}): move it away and run the same command again."
        )
    return SpartaError(
        f"{path} could not be read or written ({error.strerror or error}): see to the disk that holds it "
        "and run the same command again."
    )


@contextmanager
def os_errors_named(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into the SpartaError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error


@contextmanager
def os_errors_in_words(place: Path) -> Iterator[None]:
    """The outermost handler: turns any remaining OSError into a SpartaError. place: the path to name where the error has none.

    For whole commands and tasks. Use `os_errors_named` where the path is known.
    """
    try:
        yield
    except OSError as error:
        raise in_words(error, place) from error


def in_words(error: OSError, place: Path) -> SpartaError:
    """See `os_errors_in_words`."""
    if isinstance(error, ConnectionError) and not isinstance(error.filename, str):
        return SpartaError(
            f"A connection failed while working on {place} ({error}): run the same command again when the other side answers."
        )
    named = [
        Path(name)
        for name in (error.filename, error.filename2)
        if isinstance(name, str) and not is_temporary(Path(name).name)
    ]
    return explain(error, named[-1] if named else place)


def present(path: Path) -> bool:
    """Whether the file `path` of a state exists.

    Raises SpartaError where it is not a regular file: another run may change the target of a link, and reading a pipe may never end.
    """
    with os_errors_named(path):
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
    if not stat.S_ISREG(mode):
        raise _not_a_file(path)
    return True


def opened(path: Path, buffer: int = 8192) -> io.BufferedReader:
    """Open the file `path` for reading. Raises SpartaError where it is neither a file nor a link to one, such as a pipe, which could block.

    buffer: bytes to read at once.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_a_file(path)
    except BaseException:
        os.close(descriptor)
        raise
    return io.BufferedReader(io.FileIO(descriptor), buffer)


def _not_a_file(path: Path) -> SpartaError:
    return SpartaError(f"{path} is {_kind(path)} where a file belongs: put the file itself in its place.")


def _kind(path: Path) -> str:
    return _KINDS.get(stat.S_IFMT(path.lstat().st_mode), "a file")
