"""Rows that are appended one by one: each job writes its own file, and readers see one set.

A folder of shards stands for the set of its rows. The file, order, attempt and number of copies of a row do not matter: readers count a key once,
and `RowsEntry` does not depend on how rows are split into shards.
"""

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar, cast

import msgspec

from sparta.errors import SpartaError
from sparta.store.disk import explain, opened, os_errors_named, present
from sparta.store.files import decoder, encode_row
from sparta.store.guard import require_ours
from sparta.store.records import Row
from sparta.store.row_schema import MEASUREMENTS, Record, left_out

R = TypeVar("R", bound=Row)

_ADOPTED = "adopted.jsonl"
_SHARD = re.compile(rf"a(?P<attempt>[0-9]+)-[0-9]+(-[0-9]+)?\.jsonl|{re.escape(_ADOPTED)}")
_KEY_BYTES = 12  # 96 bits: two of a million keys meet with probability 1e-17, and an entry stays small
_ROW_BYTES = 32
_canonical = msgspec.json.Encoder(order="sorted")


class RowsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of rows: their number, and a SHA-256 of their content without MEASUREMENTS that does not depend on their order."""

    count: int
    sha256: str


def shard_file(folder: Path, attempt: int, shard: int, start: int = 0) -> Path:
    """The file of one shard: a0-00003.jsonl. Each restart of a task (`start` counts from 0) has its own file, a0-00003-1.jsonl.

    A node that lost its network may still be writing while SLURM has restarted its task elsewhere.
    """
    again = f"-{start}" if start else ""
    return folder / f"a{attempt}-{shard:05d}{again}.jsonl"


def adopted_file(folder: Path) -> Path:
    """The file of rows that another run made, which no attempt of this run wrote."""
    return folder / _ADOPTED


class ShardWriter:
    """Appends rows to the `shard_file` in `folder`, from one thread of one process.

    When `write` returns, the row is in the operating system, so the death of the process loses nothing. It is on the disk, and visible to other
    hosts, after `flush_seconds` of further writing at the latest. Call `flush` after a batch if a pause follows.

    A file that ends within a row (its writer's host died) is first truncated to the last whole row: readers ignore the torn row, but would refuse
    the line that appending to it would make.
    """

    def __init__(
        self, folder: Path, attempt: int, shard: int, flush_seconds: float = 2.0, start: int = 0
    ) -> None:
        self.path = shard_file(folder, attempt, shard, start)
        self._flush_seconds = flush_seconds
        require_ours(self.path)
        with os_errors_named(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                self._end = _end_of_rows(self._fd)
                if self._end < os.fstat(self._fd).st_size:
                    os.ftruncate(self._fd, self._end)
            except BaseException:
                self._release()
                raise
        self._synced = time.monotonic()

    def write(self, row: Row) -> None:
        """Append `row`. Raises SpartaError where the disk is full; the file then ends with the last whole row and is closed.

        Raises LockLost, without writing, where this process has lost the lock of the run.
        """
        if self._fd < 0:
            raise ValueError(f"{self.path} is closed")
        require_ours(self.path)
        line = encode_row(row)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            self._give_up(error)
        self._end += len(line)
        if time.monotonic() - self._synced >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Flush every row to the disk. Raises SpartaError on failure; a full network disk is reported here."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._give_up(error)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Flush every row to the disk and close the file. A second call does nothing."""
        if self._fd >= 0:
            self.flush()
            self._release()

    def _give_up(self, error: OSError) -> NoReturn:
        try:
            os.ftruncate(self._fd, self._end)
        except OSError as second:
            error.add_note(f"the torn row stays until the file is opened again: {second}")
        finally:
            self._release()
        raise explain(error, self.path) from error

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


class ShardReader(Generic[R]):
    """One pass over the rows of a folder: yields each key once, compares duplicates and computes the digest.

    Holds about a hundred bytes a key in memory, never the rows. Iterating raises SpartaError naming file and line where a whole line is malformed
    or not an `of`, and naming both places where two rows with one key differ in more than MEASUREMENTS. A last line without newline is still being
    written, or torn, and does not count. A missing folder has no rows.
    """

    def __init__(self, folder: Path, of: type[R]) -> None:
        self._folder = folder
        self._of = of
        self._entry: RowsEntry | None = None

    def __iter__(self) -> Iterator[R]:
        self._entry = None
        digests = _Digests()
        for path in shard_files(self._folder):
            for number, row in _rows(path, self._of):
                new = digests.add(row)
                if new:
                    yield row
                elif new is None:
                    self._disagree(row, path, number)
        self._entry = digests.entry()

    @property
    def entry(self) -> RowsEntry:
        """Count and digest of the rows. Raises ValueError before a pass is complete."""
        if self._entry is None:
            raise ValueError(f"{self._folder} has not been read to its end")
        return self._entry

    def _disagree(self, row: R, path: Path, number: int) -> NoReturn:
        first = next(
            f"{other}, line {line}"
            for other in shard_files(self._folder)
            for line, earlier in _rows(other, self._of)
            if earlier.key == row.key
        )
        raise SpartaError(
            f"{first} and {path}, line {number} are different results of the same work {row.key}: delete the wrong line "
            "(or both) and run the same command again."
        )


def iter_shards(folder: Path, of: type[R]) -> Iterator[R]:
    """The rows of `folder`, streamed, as `ShardReader` yields them."""
    return iter(ShardReader(folder, of))


def read_shards(folder: Path, of: type[R]) -> dict[str, R]:
    """The rows of `folder` by key, as `ShardReader` yields them."""
    return {row.key: row for row in ShardReader(folder, of)}


def rows_digest(rows: Iterable[Row]) -> RowsEntry:
    """Count and digest of `rows`: a ShardReader, or any rows. Raises ValueError where two rows with one key differ."""
    digests = _Digests()
    for row in rows:
        if digests.add(row) is None:
            raise ValueError(f"two different rows of the key {row.key}")
    return digests.entry()


def done_keys(folder: Path, of: type[R]) -> set[str]:
    """Keys that have a row. Malformed lines raise SpartaError; duplicates are not compared."""
    return {row.key for path in shard_files(folder) for _, row in _rows(path, of)}


class _Measured(msgspec.Struct):
    """Of a row of any kind, what it took."""

    seconds: float = 0.0


def seconds_of_rows(folder: Path, attempts: Collection[int]) -> float:
    """The measured seconds of all rows that these attempts wrote, added up. A measurement: a line that cannot be read counts for nothing."""
    total = 0.0
    decode = msgspec.json.Decoder(_Measured).decode
    for path in shard_files(folder):
        if _attempt_of(path) in attempts:
            with os_errors_named(path), opened(path, 1 << 20) as file:
                for line in file:
                    with suppress(msgspec.DecodeError):
                        total += decode(line).seconds
    return total


def _attempt_of(path: Path) -> int | None:
    """The attempt that wrote the shard file `path`; None for rows that another run made."""
    name = _SHARD.fullmatch(path.name)
    number = name["attempt"] if name else None
    return None if number is None else int(number)


class LineCounter:
    """Counts whole lines of growing shards for a progress display: duplicates count, nothing is validated."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._read: dict[Path, int] = {}

    def fresh(self) -> int:
        """Lines added since the last call; the first call counts all."""
        count = 0
        for path in (path for folder in self._folders for path in shard_files(folder)):
            with os_errors_named(path), opened(path) as file:
                file.seek(self._read.get(path, 0))
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
                self._read[path] = file.tell()
        return count


def shard_files(folder: Path) -> list[Path]:
    """The shard files of `folder`, by name; none where it does not exist."""
    with os_errors_named(folder):
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name) and present(path))


class _Digests:
    """Remembers the hash of each key's row."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._hashes = bytearray()

    def add(self, row: Row) -> bool | None:
        """True: a new key. False: the same row again. None: a different row for a known key."""
        fresh = len(self._places)
        place = self._places.setdefault(_key_hash(row), fresh)
        digest = row_hash(row)
        if place == fresh:
            self._hashes += digest
            return True
        return False if self._hashes[place * _ROW_BYTES : (place + 1) * _ROW_BYTES] == digest else None

    def entry(self) -> RowsEntry:
        """Count and digest of the rows added. Call it last: it drops the keys to free memory for sorting."""
        self._places.clear()
        view = memoryview(self._hashes)
        hashes = sorted(bytes(view[at : at + _ROW_BYTES]) for at in range(0, len(view), _ROW_BYTES))
        total = hashlib.sha256()
        for row_hash in hashes:
            total.update(row_hash)
        return RowsEntry(len(hashes), total.hexdigest())


def _key_hash(row: Row) -> bytes:
    return hashlib.blake2b(row.key.encode(), digest_size=_KEY_BYTES).digest()


def row_hash(row: Row) -> bytes:
    """SHA-256 of a row without MEASUREMENTS and without fields at their default."""
    record = cast(Record, row)
    fields = msgspec.structs.asdict(record)
    for name in (*MEASUREMENTS, *left_out(record)):
        fields.pop(name, None)
    return hashlib.sha256(_canonical.encode(fields)).digest()


def _rows(path: Path, of: type[R]) -> Iterator[tuple[int, R]]:
    """Line number and row of every whole line."""
    decode = decoder(of).decode
    with os_errors_named(path), opened(path, 1 << 20) as file:
        for number, line in enumerate(file, start=1):
            if line[-1] != 0x0A:
                return
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise SpartaError(
                    f"{path}, line {number} is not a valid {of.__name__} ({error}): delete that line and run the same "
                    "command again, which does its work again."
                ) from error
            yield number, row


def _end_of_rows(fd: int) -> int:
    """Offset after the last newline."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 65536)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
