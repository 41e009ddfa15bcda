"""Raw rows of a user's data: of a file, of a folder, or of a data set of the Hugging Face hub that was fetched.

JSON Lines, JSON, CSV and TSV, also compressed (.gz), are read strictly, with all digits as typed; Parquet and Arrow files by pyarrow; folders by
`datasets`. A file with another ending is taken for JSON Lines. Code that a data set ships is never run.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparta.errors import NotHere, SpartaError, first_line
from sparta.recipes.data import Data, Split, hub_data_folder, names_hub_data
from sparta.recipes.load import read_yaml
from sparta.recipes.pool import FETCH
from sparta.store.disk import explain
from sparta.tasks.json_text import parse_json
from sparta.tasks.raw_files import ending, rows_of

Row = Mapping[str, Any]
BATCH = 1024
"""Rows of a Parquet file that are in memory at a time."""
_HEAD = re.compile(r"---\n(.*?)\n---", re.DOTALL)
"""The YAML at the beginning of a data set's page."""
TABLES = (".json", ".csv", ".tsv")


@dataclass(frozen=True)
class UserSource:
    """Where rows come from. path: a file or a folder. title: what messages call it. key: the recipe key that names it. split, config: of a folder
    that has several. fetched: whether it is a data set of the hub.
    """

    path: Path
    title: str
    key: str
    split: str = "train"
    config: str | None = None
    fetched: bool = False

    @property
    def is_there(self) -> bool:
        return self.path.exists()

    def rows(self) -> Iterator[tuple[str, Row]]:
        """The rows in order, each with its place ("line 12", "row 12"). Raises SpartaError for a source that cannot be read, naming the place."""
        if self.fetched and not self.is_there:
            raise NotHere(f"{self.title} is not in {self.path}: {FETCH}")
        if self.path.is_dir():
            yield from _folder(self)
            return
        kind = ending(self.path)
        if kind in _BINARY:
            yield from _numbered(self, _BINARY[kind])
        elif kind in TABLES:
            yield from _table(self.path)
        else:
            yield from _lines(self)


def source_of(data: Data, split: Split) -> UserSource | None:
    """What `data` names for `split`; None if it names nothing."""
    given: str | None = getattr(data, split)
    if given is None:
        return None
    key, part = f"data.{split}", data.splits[split]
    if names_hub_data(given):
        return UserSource(
            hub_data_folder(given, data.folder), f"{given} ({part})", key, part, data.config, fetched=True
        )
    title = f"{given} ({part})" if Path(given).is_dir() else given
    return UserSource(Path(given), title, key, part, data.config)


def _lines(source: UserSource) -> Iterator[tuple[str, Row]]:
    """The rows of JSON Lines, read lazily."""
    path = source.path
    # Lines end only with \n: JSON allows other separators, such as U+2028, within a text.
    opened: Callable[[], Any] = (
        partial(gzip.open, path, "rt", encoding="utf-8-sig", newline="\n")
        if path.suffix == ".gz"
        else partial(path.open, encoding="utf-8-sig", newline="\n")
    )
    try:
        with opened() as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = parse_json(line.removesuffix("\n"))
                except ValueError as error:
                    raise broken(source, f"line {number}", str(error)) from None
                if not isinstance(row, dict):
                    raise broken(source, f"line {number}", f"expected an object, found {type(row).__name__}")
                yield f"line {number}", row
    except (FileNotFoundError, UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SpartaError(f"the prompt file {path} cannot be read ({error}): check {source.key}") from error
    except OSError as error:
        raise explain(error, path) from error


def _table(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a table or a JSON list. An empty cell of a table is no value."""
    for place, row in rows_of(path):
        where = place.removeprefix(f"{path}, ")
        yield where, row if ending(path) == ".json" else {name: value or None for name, value in row.items()}


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


def _arrow(path: Path) -> Iterator[Row]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as mapped:
        # `datasets` writes streams, other programs files.
        try:
            reader = pyarrow.ipc.open_stream(mapped)
            batches = iter(reader)
        except pyarrow.ArrowInvalid:
            mapped.seek(0)
            file = pyarrow.ipc.open_file(mapped)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        for batch in batches:
            yield from batch.to_pylist()


_BINARY: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}


def _folder(source: UserSource) -> Iterator[tuple[str, Row]]:
    """The rows of one split of a folder: a data set as `datasets` saves it, or files that it recognises."""
    return _numbered(source, partial(_split_of_folder, source))


def _refuse_ways_out(source: UserSource) -> None:
    """Raises SpartaError where the page or an index of the folder names rows outside it: `datasets` would read them."""
    page = source.path / "README.md"
    if page.is_file():
        head = _HEAD.match(page.read_text(encoding="utf-8", errors="replace"))
        try:
            named = read_yaml(head[1]) if head else None
        except ValueError as error:
            raise SpartaError(f"{page}: its head is {error}") from None
        configs = named.get("configs") if isinstance(named, dict) else None
        _require_inside(configs, page, ("data_files", "data_dir", "path"))
    for index in source.path.glob("**/state.json"):
        _require_inside(parse_json(index.read_text(encoding="utf-8")), index, ("filename",))


def _require_inside(tree: Any, where: Path, keys: tuple[str, ...], path: bool = False) -> None:
    """Raises SpartaError for a text below one of `keys` that leads out of the folder. path: whether `tree` is below one."""
    if (
        isinstance(tree, str)
        and path
        and (tree.startswith(("/", "~")) or ".." in Path(tree).parts or "://" in tree)
    ):
        raise SpartaError(
            f"{where} names {tree}, which is not in its folder: take that out, or name the file itself in the recipe"
        )
    if isinstance(tree, list):
        for each in tree:
            _require_inside(each, where, keys, path)
    if isinstance(tree, dict):
        for key, each in tree.items():
            # Of a mapping below data_files, the keys are splits.
            _require_inside(each, where, keys, key in keys or (path and key != "split"))


def _split_of_folder(source: UserSource, path: Path) -> Iterator[Row]:
    import datasets

    _refuse_ways_out(source)
    # Nothing is written beside the user's data, nor twice into the home directory: rows are streamed.
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        found = (
            datasets.load_from_disk(str(path))
            if saved
            else datasets.load_dataset(str(path), name=source.config, streaming=True)
        )
    except ValueError as error:
        if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
            raise SpartaError(
                f"{source.title}: {first_line(error)[:300]}: set data.config to one of them"
            ) from None
        raise
    if isinstance(found, datasets.Dataset):
        return iter(found)
    if source.split not in found:
        raise SpartaError(
            f"{source.title.removesuffix(f' ({source.split})')} has no split {source.split}, but {', '.join(found)}: name one in data.split"
        )
    return iter(found[source.split])


def _numbered(source: UserSource, read: Callable[[Path], Iterator[Row]]) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        for number, row in enumerate(read(source.path), start=1):
            yield f"row {number}", row
    except (SpartaError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise SpartaError(
            f"the prompt file {source.path} cannot be read ({error}): check {source.key}"
        ) from error
    # The libraries raise a dozen types for a broken file, which change between versions; they are shown in their own words.
    except Exception as error:
        after = f" after row {number}" if number else ""
        raise SpartaError(
            f"{source.title} cannot be read{after} ({first_line(error)[:300]}): check {source.key}"
        ) from error


def broken(source: UserSource, place: str, why: str) -> SpartaError:
    """The error for a row of `source` that cannot be used."""
    return SpartaError(f'{source.title}, {place}: {why}; a line is an object such as {{"prompt": "..."}}')
