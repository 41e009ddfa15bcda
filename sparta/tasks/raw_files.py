"""Reads the raw rows of data sets, as published: from files below a folder, or from the Hugging Face hub."""

import csv
import glob
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from sparta.errors import SpartaError, first_line
from sparta.names import quoted
from sparta.store import files
from sparta.tasks.dataset import HubSplit, LocalFile, Source
from sparta.tasks.json_text import NotJson, parse_json
from sparta.tasks.prepared import Read

Row = dict[str, Any]


class Raw(Protocol):
    """Rows by the keys of a Source. kind: their origin. read: the data read so far, by key. current: the latest row, with its place."""

    source: Source[Any]
    kind: Literal["local", "hub"]
    read: dict[str, Read]
    current: tuple[str, Row] | None

    def rows(self, key: str) -> Iterator[Row]:
        """The rows of `key`, in order; none for a missing optional file. Raises SpartaError for any other missing or broken file."""
        ...


class LocalRaw:
    """The files of `source`, found by name anywhere below `folder`."""

    kind: Literal["local", "hub"] = "local"

    def __init__(self, source: Source[Any], folder: Path) -> None:
        if not folder.is_dir():
            raise SpartaError(
                f"{quoted('--from', folder)} is no folder: name the one that the data sets' files lie below"
            )
        self.source, self.folder = source, folder
        self.read: dict[str, Read] = {}
        self.current: tuple[str, Row] | None = None

    def rows(self, key: str) -> Iterator[Row]:
        wanted = self.source.files[key]
        if not isinstance(wanted, LocalFile):
            raise TypeError(f"{key} is no local file")
        path = self._find(wanted)
        if path is None:
            if key in self.source.optional:
                return
            raise SpartaError(
                f"{self.folder} holds no {wanted.described}: copy the file there, or name another folder with --from"
            )
        self.read[key] = Read(file=os.path.relpath(path, self.folder), sha256=files.sha256_file(path))
        for self.current in rows_of(path, wanted.parts, wanted.columns):
            yield self.current[1]
        self.current = None

    def _find(self, wanted: LocalFile) -> Path | None:
        """The file of that name. Raises SpartaError if there are several with different contents."""
        found = [
            self.folder / name
            for name in sorted(
                glob.iglob(f"**/{glob.escape(wanted.name)}", root_dir=self.folder, recursive=True)
            )
        ]
        if wanted.within:
            inside = [path for path in found if wanted.within in path.relative_to(self.folder).parts[:-1]]
            found = inside if inside or wanted.within not in self.folder.resolve().parts else found
        for other in found[1:]:
            if files.sha256_file(other) != files.sha256_file(found[0]):
                raise SpartaError(
                    f"{found[0]} and {other} could both be {wanted.described}: take one away, or name a folder that holds one with --from"
                )
        return found[0] if found else None


class HubRaw:
    """Splits of data sets on the hub, loaded and cached by `datasets.load_dataset`. Code shipped with a data set is never run.

    revisions: commit by data set, for those that `source` does not pin; without one, the latest is used. local: equivalent local files,
    for the error message if the hub fails.
    """

    kind: Literal["local", "hub"] = "hub"

    def __init__(self, source: Source[Any], revisions: Mapping[str, str], local: Source[Any]) -> None:
        self.source, self.local = source, local
        self.revisions = dict(revisions)
        self.read: dict[str, Read] = {}
        self.current: tuple[str, Row] | None = None

    def rows(self, key: str) -> Iterator[Row]:
        wanted = self.source.files[key]
        if not isinstance(wanted, HubSplit):
            raise TypeError(f"{key} is no split on the hub")
        try:
            commit = self._commit(wanted)
            loaded = _load(wanted, commit)
        except SpartaError:
            raise
        # The libraries raise a dozen exception types (no network, unknown or gated data set, broken file); the remedy is always the same.
        except Exception as error:
            raise SpartaError(
                f"{_title(wanted)} could not be loaded from the hub ({first_line(error)}): try again where the hub can be reached, or copy "
                f"{' and '.join(file.described for file in self.local.files.values() if isinstance(file, LocalFile))} into a folder and add --from FOLDER"
            ) from error
        self.read[key] = Read(
            dataset=wanted.dataset,
            config=wanted.config,
            split=wanted.split,
            revision=commit,
            only=wanted.only,
        )
        for number, row in _numbered_rows(loaded, wanted):
            self.current = f"{_title(wanted)}, row {number}", dict(row)
            yield self.current[1]
        self.current = None

    def _commit(self, wanted: HubSplit) -> str:
        """The commit to load; "" for a folder, which has none."""
        import datasets
        import huggingface_hub

        name = wanted.dataset
        if os.path.isabs(name):
            return ""
        if os.path.isdir(name):
            raise SpartaError(
                f"a folder {name} is in the working directory and would be read instead of the data set on the hub: run from another directory"
            )
        known = wanted.revision or self.revisions.get(name, "")
        if datasets.config.HF_HUB_OFFLINE:
            if not known:
                raise ConnectionError("HF_HUB_OFFLINE is set, and which revision to take is not known yet")
            return known
        # Also for a known revision, because load_dataset takes minutes to fail if the hub is unreachable.
        commit = huggingface_hub.HfApi().dataset_info(name, revision=known or None, timeout=30).sha or ""
        self.revisions[name] = known or commit
        return known or commit


def _load(wanted: HubSplit, commit: str) -> Any:
    """The split, a `datasets.Dataset`. Raises SpartaError if the cache returns another revision than `commit`."""
    import datasets

    loaded = datasets.load_dataset(
        wanted.dataset, name=wanted.config, split=wanted.split, revision=commit or None
    )
    # If the hub fails, load_dataset silently uses the latest revision in its cache, which has one folder per revision.
    kept = {Path(file["filename"]).parent.name for file in loaded.cache_files}
    if commit and kept - {commit}:
        raise SpartaError(
            f"{_title(wanted)}: the cache holds revision {', '.join(sorted(kept))} and the hub was not asked for {commit}: unset HF_HUB_OFFLINE, "
            "or try again where the hub can be reached"
        )
    return loaded


def _numbered_rows(loaded: Any, wanted: HubSplit) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The wanted rows with their numbers in the split, from 1. Of the other rows, only the column used for the selection is read."""
    if not wanted.column:
        return enumerate(loaded, start=1)
    if wanted.column not in loaded.column_names:
        raise SpartaError(
            f"{_title(wanted)} has no column {wanted.column}, but {', '.join(loaded.column_names)}: its publishers have changed it, "
            "take files of an earlier revision with --from FOLDER"
        )
    names = loaded.select_columns([wanted.column]).with_format("arrow")[:].column(wanted.column).to_pylist()
    places = [place for place, name in enumerate(names) if (name or "").split(".")[0] == wanted.only]
    return zip((place + 1 for place in places), loaded.select(places), strict=True)


def _title(wanted: HubSplit) -> str:
    parts = (wanted.config, wanted.split, wanted.only)
    return f"{wanted.dataset} ({', '.join(filter(None, parts))})"


def rows_of(path: Path, parts: Sequence[str] = (), columns: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """The rows of a file with their places, by its ending: .jsonl, .json (a list, or an object with `parts`, see LocalFile), .csv and .tsv (the
    first line names the columns, where they are not given); also compressed, with .gz after it.

    UTF-8, with or without a byte order mark. Raises SpartaError naming file and line where it is broken.
    """
    readers: Mapping[str, Callable[[Path, str], Iterator[tuple[str, Any]]]] = {
        ".jsonl": _json_lines,
        ".json": partial(_json, parts),
        ".csv": partial(_table, columns),
        ".tsv": partial(_table, columns),
    }
    kind = ending(path)
    if kind not in readers:
        raise SpartaError(f"{path} is none of {', '.join(readers)}: these are what rows are read from")
    for place, row in readers[kind](path, _text(path)):
        if not isinstance(row, dict):
            raise _broken(path, place, f"expected an object, found {type(row).__name__}")
        yield f"{path}, {place}", row


def ending(path: Path) -> str:
    """The suffix that tells the kind of `path`: of rows.csv.gz it is .csv."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def _text(path: Path) -> str:
    with files.os_errors_named(path):
        data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SpartaError(f"{path} is not a whole gzip file ({error}): get it again") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpartaError(
            f"{path}, line {line}: not UTF-8 ({error.reason}): convert the file, or get it again"
        ) from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # str.splitlines also splits at separators that JSON allows within a text, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = parse_json(line)
            except NotJson as error:
                raise _broken(path, f"line {number}", str(error)) from None
            yield f"line {number}", row


def _json(parts: Sequence[str], path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        whole = parse_json(text)
    except NotJson as error:
        raise _broken(path, f"line {error.line}", str(error)) from None
    if not parts and isinstance(whole, list):
        yield from _numbered("entry", whole)
    elif not parts or not isinstance(whole, dict):
        expected = f"an object with {' and '.join(parts)}" if parts else "a list"
        raise _broken(path, "line 1", f"expected {expected}, found {type(whole).__name__}")
    for part in parts:
        rows = whole.get(part)
        if isinstance(rows, list):
            yield from _numbered(f"{part}, entry", rows)
        elif isinstance(rows, dict):
            for key, row in rows.items():
                yield f"{part}, {key}", {"id": key} | row if isinstance(row, dict) else row
        else:
            raise _broken(path, part, "it is not there, or no list or object")


def _numbered(what: str, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{what} {number}", row) for number, row in enumerate(rows, start=1))


def _table(columns: Sequence[str], path: Path, text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(
        io.StringIO(text, newline=""),
        fieldnames=columns or None,
        strict=True,
        dialect="excel-tab" if ending(path) == ".tsv" else "excel",
        quoting=csv.QUOTE_NONE if columns else csv.QUOTE_MINIMAL,
    )
    try:
        named = reader.fieldnames or ()
    except csv.Error as error:
        raise _broken(path, "line 1", str(error)) from None
    if twice := [name for name in dict.fromkeys(named) if list(named).count(name) > 1]:
        raise _broken(path, "line 1", f"the column {twice[0]!r} is there twice")
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _broken(path, f"line {reader.reader.line_num}", str(error)) from None
        if row is None:
            return
        if None in row or None in row.values():
            known = f"{', '.join(columns)}" if columns else "the first line names"
            why = f"{'more' if None in row else 'fewer'} columns than {known}"
            raise _broken(path, f"line {reader.reader.line_num}", why)
        yield f"line {reader.reader.line_num}", row


def _broken(path: Path, place: str, why: str) -> SpartaError:
    return SpartaError(f"{path}, {place}: {why}; get the file again")
