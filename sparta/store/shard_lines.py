"""The lines of a folder of shards as they are on the disk, the broken and the doubled ones too: for checks and repairs. Readers of results use
`sparta.store.shards`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sparta.store.disk import opened, os_errors_named
from sparta.store.files import decoder
from sparta.store.records import Row
from sparta.store.shards import row_hash, shard_files


@dataclass(frozen=True)
class ShardLine:
    """One line. number: from 1. row: None if the line is not a row, for the reason `error`. torn: the line has no end, so it does not count."""

    path: Path
    number: int
    raw: bytes
    row: Row | None
    error: str = ""

    @property
    def torn(self) -> bool:
        return not self.raw.endswith(b"\n")

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


def shard_lines(folder: Path, of: type[Row]) -> Iterator[ShardLine]:
    """Every line of the shards in `folder`, in the order in which readers take them; none if there is no folder."""
    decode = decoder(of).decode
    for path in shard_files(folder):
        with os_errors_named(path), opened(path, 1 << 20) as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    yield ShardLine(path, number, raw, None, "it is cut off")
                    continue
                try:
                    yield ShardLine(path, number, raw, decode(raw))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    yield ShardLine(path, number, raw, None, str(error))


@dataclass
class FolderLines:
    """The lines of a folder that need attention. keys: of its rows. doubled: lines that repeat an earlier one. differing: by key, lines with
    different rows. broken: whole lines that are no rows. torn: last lines without end."""

    keys: set[str]
    doubled: list[ShardLine]
    differing: dict[str, list[ShardLine]]
    broken: list[ShardLine]
    torn: list[ShardLine]


def lines_to_mend(folder: Path, of: type[Row]) -> FolderLines:
    """What of the lines in `folder` a reader would refuse, skip or count once."""
    found = FolderLines(set(), [], {}, [], [])
    hashes: dict[str, bytes] = {}
    for line in shard_lines(folder, of):
        if line.row is None:
            (found.torn if line.torn else found.broken).append(line)
            continue
        key, digest = line.row.key, row_hash(line.row)
        if hashes.setdefault(key, digest) != digest:
            found.differing[key] = []
        elif key in found.keys:
            found.doubled.append(line)
        found.keys.add(key)
    if found.differing:
        for line in shard_lines(folder, of):
            if line.row is not None and line.row.key in found.differing:
                found.differing[line.row.key].append(line)
        found.doubled = [line for line in found.doubled if line.row and line.row.key not in found.differing]
    return found
