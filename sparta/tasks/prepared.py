"""Prepared data: the splits of a task as JSON Lines of items, a subset for experts as JSON Lines of chats, and their provenance.

    <folder>/<task>/train.jsonl, validation.jsonl, test.jsonl    one Item a line
    <folder>/<subset>/train.jsonl                                one Chat a line
    <folder>/<either>/source.json                                a Provenance, written last; it lists the valid splits

The command prepare_data writes them; tasks read the items, sparta.tasks.sft_data.load reads the chats.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import msgspec

from sparta.errors import NotHere, SpartaError
from sparta.names import DATASETS, suggested
from sparta.recipes.data import Data
from sparta.store import files
from sparta.tasks.base import Item, Split, Task
from sparta.tasks.chats import Chat

T = TypeVar("T")
SCHEMA_VERSION = 1
SPLITS: tuple[Split, ...] = get_args(Split)


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The data read for one key of a data set's Source.

    For a local file: file (its path below the folder) and sha256. For the hub: dataset, config, split, revision (the commit of the data
    set's repository), and only, if not all rows of the split were used.
    """

    file: str = ""
    sha256: str = ""
    dataset: str = ""
    config: str | None = None
    split: str = ""
    revision: str = ""
    only: str = ""


class SplitFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A written split: its number of items (or chats) and the SHA-256 of its file."""

    items: int
    sha256: str


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """source.json: the origin of the splits of a task, or of a subset.

    files: the data read, by key of the data set's Source. dropped: counts of dropped rows, by reason. missing: for each missing split, the
    reason and the remedy.
    """

    task: str
    source: Literal["local", "hub"]
    licence: str
    files: dict[str, Read]
    dropped: dict[str, int]
    notes: tuple[str, ...]
    missing: dict[Split, str]
    splits: dict[Split, SplitFile] = {}
    schema_version: int = SCHEMA_VERSION


def folder_of(data: Data) -> Path:
    """The folder of the tasks' prepared data."""
    return Path(data.folder) if data.folder else DATASETS


def command_to_prepare(folder: Path, task: str) -> str:
    """The command that prepares `task` in `folder`."""
    return suggested("prepare_data", task, *(() if folder == DATASETS else ("--folder", folder)))


def write(folder: Path, task: Task, splits: Mapping[Split, Sequence[Item]], source: Provenance) -> Provenance:
    """Write `splits` below `folder`, replacing any earlier ones. Returns `source` with the written splits.

    Raises SpartaError, and writes nothing, if two items of a split have the same id, if two splits share an item, or if an item cannot be
    graded (see `flaw`) or lacks the reference that its judge needs.
    """
    for split, items in splits.items():
        _check(task, split, items)
    refuse_overlap(splits)
    return _put(folder / task.name, splits, source)


def write_chats(folder: Path, subset: str, chats: Sequence[Chat], source: Provenance) -> Provenance:
    """Write the chats of a subset below `folder`, replacing any earlier ones. Returns `source` with the written split."""
    return _put(folder / subset, {"train": chats}, source)


def _put(
    home: Path, splits: Mapping[Split, Sequence[Item] | Sequence[Chat]], source: Provenance
) -> Provenance:
    written: dict[Split, SplitFile] = {}
    for split, rows in splits.items():
        path = home / f"{split}.jsonl"
        files.write_rows(path, rows)
        written[split] = SplitFile(len(rows), files.sha256_file(path))
    source = msgspec.structs.replace(source, splits=written)
    files.write_json(home / "source.json", source)
    for split in SPLITS:
        if split not in written:
            (home / f"{split}.jsonl").unlink(missing_ok=True)
    return source


def provenance(folder: Path, task: str) -> Provenance | None:
    """The provenance of `task` in `folder`; None if it is not prepared."""
    path = folder / task / "source.json"
    if not path.is_file():
        return None
    found = files.read_json(path, Provenance)
    if found.schema_version != SCHEMA_VERSION:
        raise SpartaError(
            f"{path} was written by another version of this program: run {command_to_prepare(folder, task)} again"
        )
    return found


def split_file(folder: Path, task: str, split: Split) -> SplitFile:
    """The recorded size and hash of a split, without reading the split. Raises NotHere with the command to run if it is not prepared."""
    source = provenance(folder, task)
    command = command_to_prepare(folder, task)
    if source is None:
        raise NotHere(f"the data of {task} is not prepared in {folder}: run {command}")
    if split not in source.splits:
        why = source.missing.get(split, "its source has none")
        raise SpartaError(
            f"{task} has no {split} split in {folder}: {why}; then run {command} again, with --from FOLDER for your own files"
        )
    return source.splits[split]


def read(folder: Path, task: str, split: Split) -> list[Item]:
    """The items of a split. Raises SpartaError with the command to run if it is not prepared, or was changed since."""
    return _read(folder, task, split, Item)


def read_chats(folder: Path, subset: str) -> list[Chat]:
    """The chats of a subset. Raises SpartaError as `read` does."""
    return _read(folder, subset, "train", Chat)


def _read(folder: Path, task: str, split: Split, of: type[T]) -> list[T]:
    known, path = split_file(folder, task, split), folder / task / f"{split}.jsonl"
    if not path.is_file() or files.sha256_file(path) != known.sha256:
        raise SpartaError(
            f"{path} is missing or was changed since it was prepared: run {command_to_prepare(folder, task)} again"
        )
    return list(files.read_rows(path, of))


def flaw(item: Item, answer: bool, choices: bool) -> str | None:
    """Why an item cannot be graded; None if it can. answer, choices: whether it needs them."""
    if choices and not item.choices:
        return "has no choices"
    if answer and not (item.answer or "").strip():
        return "has no answer"
    if item.choices and item.answer is not None and item.answer not in item.choices:
        return f"has the answer {item.answer!r}, which is no label of its choices ({', '.join(item.choices)})"
    if item.right and item.answer is not None and item.answer not in item.right:
        return f"has the answer {item.answer!r}, which is not among the right ones ({', '.join(item.right)})"
    if unknown := [label for label in item.right if label not in item.choices]:
        return f"has {unknown[0]!r} among the right ones, which is no label of its choices ({', '.join(item.choices)})"
    return None


def refuse_overlap(splits: Mapping[Split, Iterable[Item]]) -> None:
    """Raise SpartaError if two splits share a question; texts are compared ignoring case and white space."""
    seen: dict[str, tuple[Split, str]] = {}
    for split, items in splits.items():
        for item in items:
            other, item_id = seen.setdefault(content(item), (split, item.item_id))
            if other != split:
                raise SpartaError(
                    f"{item.item_id} of {split} asks the same as {item_id} of {other}: take it out of one of them, splits share no item"
                )


def content(item: Item) -> str:
    """The question of an item with its choices, normalised for case and white space."""
    texts = (*(turn.content for turn in item.messages), *item.choices.values())
    return "\n".join(" ".join(text.casefold().split()) for text in texts)


def _check(task: Task, split: Split, items: Sequence[Item]) -> None:
    graded = split != "train"
    answer = graded and any(metric.rubric is None for metric in task.metrics)
    reference = graded and any(metric.rubric and metric.rubric.reference for metric in task.metrics)
    lines: dict[str, int] = {}
    for number, item in enumerate(items, start=1):
        place = f"{task.name}, {split}: item {item.item_id} (line {number})"
        if item.item_id in lines:
            raise SpartaError(
                f"{place} has the id of line {lines[item.item_id]}: every item of a split needs an id of its own"
            )
        lines[item.item_id] = number
        if why := flaw(item, answer, choices=graded and task.likelihood):
            raise SpartaError(f"{place} {why}: it cannot be graded")
        if reference and not (item.reference or "").strip():
            raise SpartaError(f"{place} has no reference, which the judge is to see: it cannot be graded")
        try:
            files.encode_row(item)
        except UnicodeEncodeError:
            raise SpartaError(
                f"{place} holds half a character (a lone surrogate), which no file can hold"
            ) from None
