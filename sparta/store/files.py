"""Whole files: writes are atomic, and an error while reading names the file.

For rows that are appended one by one, see `sparta.store.shards`.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from sparta.errors import SpartaError, note
from sparta.store.disk import explain as explain
from sparta.store.disk import opened, present
from sparta.store.disk import os_errors_named as os_errors_named
from sparta.store.guard import require_ours
from sparta.store.row_schema import Record, left_out
from sparta.store.temporaries import abandoned_of, is_temporary, temporary_beside

T = TypeVar("T")

MEASURED_FILES = ("log.jsonl", "report.json")
"""Names of files in an adapter's folder that hold measurements; no digest covers them."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably; parents are created. Raises SpartaError on failure; the old file stays intact."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as indented JSON. Equal values give equal bytes: keys of dictionaries are sorted."""
    write_bytes(path, encode_json(value))


def encode_json(value: object) -> bytes:
    """The bytes that `write_json` writes."""
    return msgspec.json.format(_encoder.encode(value), indent=2) + b"\n"


def write_rows(path: Path, rows: Iterable[object]) -> None:
    """Write `rows` to `path` atomically, one JSON object a line. Rows are streamed, not held in memory."""
    with replacing(path) as file:
        for row in rows:
            file.write(encode_row(row))


def encode_row(row: object) -> bytes:
    """One line of a JSON Lines file, with its newline. A record's optional fields at their default are left out."""
    if isinstance(row, Record) and (names := left_out(row)):
        row = msgspec.structs.replace(row, **dict.fromkeys(names, msgspec.UNSET))
    return _encoder.encode(row) + b"\n"


def read_bytes(path: Path) -> bytes:
    """The bytes of the file `path`. Raises SpartaError where it cannot be read."""
    with os_errors_named(path), opened(path) as file:
        return file.read()


def read_json(path: Path, of: type[T], remedy: str = "restore it from a copy") -> T:
    """The value in the JSON file `path`. Raises SpartaError, with `remedy`, where the file is missing or does not hold an `of`."""
    data = read_bytes(path)
    try:
        return decoder(of).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpartaError(f"{path} is not a valid {_name(of)} ({error}): {remedy}.") from error


def read_measured(path: Path, of: type[T]) -> T | None:
    """The value in a JSON file on which no result depends: None where the file is missing or, with a note, where it is damaged.

    Raises SpartaError where the disk fails, because the same command may succeed later.
    """
    try:
        return read_json(path, of) if present(path) else None
    except SpartaError as error:
        cause = error.__cause__
        if isinstance(cause, FileNotFoundError):
            # Removed since `present` saw it.
            return None
        if isinstance(cause, OSError) and cause.errno != errno.EIO:
            raise
        note(f"{path} is damaged and counts as missing, no result depends on it ({error})")
        return None


def read_rows(path: Path, of: type[T]) -> Iterator[T]:
    """The rows of a file that was written by `write_rows`, streamed.

    Raises SpartaError naming file and line where a row is malformed or is not an `of`, and where the file ends within a row.
    """
    decode = decoder(of).decode
    number, line = 0, b"\n"
    with os_errors_named(path), opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise SpartaError(
                    f"{path}, line {number} is not a valid {_name(of)} ({error}): restore the file from a copy."
                ) from error
            yield row
    if not line.endswith(b"\n"):
        raise SpartaError(f"{path} ends within line {number}: it was cut off; restore the file from a copy.")


def decoder(of: type[T]) -> msgspec.json.Decoder[T]:
    """The validating decoder of `of`, cached: making one costs more than reading many rows."""
    if of not in _decoders:
        _decoders[of] = msgspec.json.Decoder(of)
    return _decoders[of]


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    with os_errors_named(path), opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """SHA-256 over names and contents of the files below `folder`, without MEASURED_FILES.

    It is the digest of what `sha256sum` prints for them in the order of their names, so anybody can verify it.
    """
    return tree_digest({name: sha256_file(folder / name) for name in tree(folder)})


def tree_digest(sha256: Mapping[str, str]) -> str:
    """The digest of a folder, see `sha256_tree`, from the SHA-256 of each of its files by name."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sha256.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tree(folder: Path) -> list[str]:
    """Sorted names, relative to `folder`, of the files below it, without measurements and temporary files.

    Raises SpartaError where `folder` is missing, or holds a link to a folder, whose content would not be covered.
    """
    names: list[str] = []
    with os_errors_named(folder):
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
        for here, folders, files in os.walk(folder, onerror=_raise):
            for name in folders:
                if os.path.islink(os.path.join(here, name)):
                    raise SpartaError(
                        f"{here}/{name} is a link to a folder: put a copy of the folder in its place."
                    )
            names += [
                os.path.relpath(os.path.join(here, name), folder)
                for name in files
                if name not in MEASURED_FILES and not is_temporary(name)
            ]
    return sorted(names)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into. It replaces `path` when the block succeeds, and is removed when it does not."""
    with os_errors_named(path):
        make_folder(path.parent)
        temporary = temporary_beside(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            require_ours(path)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def put_tree(folder: Path, write: Callable[[Path], None]) -> bool:
    """Create `folder` atomically and durably: `write` fills a temporary folder, which is then renamed. Parents are created.

    Returns False, and changes nothing, where something exists at `folder`. Raises SpartaError on failure; nothing is left behind.
    """
    with os_errors_named(folder):
        if os.path.lexists(folder):
            return False
        make_folder(folder.parent)
        remove_abandoned(folder)
        temporary = temporary_beside(folder)
        try:
            temporary.mkdir()
            write(temporary)
            return move_tree(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def move_tree(made: Path, folder: Path) -> bool:
    """Rename the finished folder `made` to `folder` beside it, durably. False as in `put_tree`."""
    with os_errors_named(folder):
        for here, _, names in os.walk(made, topdown=False, onerror=_raise):
            for name in names:
                sync(Path(here, name))
            sync(Path(here))
        require_ours(folder)
        try:
            os.rename(made, folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        sync(folder.parent)
    return True


def copy_tree(source: Path, folder: Path) -> None:
    """Copy the contents of the folder `source` into the folder `folder`, with file times. Raises the first OSError."""
    for here, folders, names in os.walk(source, onerror=_raise):
        inside = folder / os.path.relpath(here, source)
        for name in folders:
            (inside / name).mkdir()
        for name in names:
            shutil.copy2(os.path.join(here, name), inside / name)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists. Raises SpartaError on failure."""
    with os_errors_named(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it."""
    for left in abandoned_of(path):
        remove(left)


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents durably: they survive a power failure."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order renames on the server.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def _name(of: object) -> str:
    return getattr(of, "__name__", str(of))


def _raise(error: OSError) -> Any:
    raise error
