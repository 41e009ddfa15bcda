"""What jobs/prepare_data.py does: raw rows in, checked splits and their provenance out, one data set after the other.

A data set is a task's, which models are scored on, or a subset of chats that an expert learns from.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sparta.cluster.console import Screen
from sparta.errors import SpartaError
from sparta.recipe import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Split
from sparta.tasks.chats import Chat, Chats
from sparta.tasks.contamination import HeldOut, held_out
from sparta.tasks.dataset import Dataset, LocalFile, Source, Splits
from sparta.tasks.prepared import SPLITS, Provenance
from sparta.tasks.raw import HubRaw, LocalRaw, Raw
from sparta.tasks.registry import LESSONS, TASKS, task_named
from sparta.tasks.subsets import SUBSETS, Subset


@dataclass(frozen=True)
class Origin:
    """Where raw rows come from.

    folder: files below it; None: the hub. single: of the hub, each subset's own repository in place of the Tulu-v2 mixture. update: take the
    hub's present revisions, not those of the last time.
    """

    folder: Path | None = None
    single: bool = False
    update: bool = False


@dataclass(frozen=True)
class Prepared:
    """What became of a data set: its provenance, or why there is none."""

    dataset: Dataset | Subset
    source: Provenance | None
    failure: str = ""


def datasets_named(names: Sequence[str]) -> list[Dataset | Subset]:
    """The data sets called `names`, each once, tasks before subsets, as these keep clear of what tasks score on.

    "all": all tasks; "subsets": the paper's ten. Raises SpartaError where one is unknown, or is not made from data.
    """
    groups = {
        "all": [name for name, task in TASKS.items() if isinstance(task, Dataset)],
        "subsets": list(SUBSETS),
    }
    wanted = dict.fromkeys(name for given in names for name in groups.get(given, [given]))
    return sorted(map(_dataset, wanted), key=lambda dataset: isinstance(dataset, Subset))


def _dataset(name: str) -> Dataset | Subset:
    if name in LESSONS:
        return LESSONS[name]
    if name == "own":
        raise SpartaError(
            "the task own reads its files itself, where data.train, data.validation and data.test name them: there is nothing to prepare"
        )
    near = difflib.get_close_matches(name, (*TASKS, *LESSONS), n=1)
    if near and near[0] in LESSONS:
        raise SpartaError(f"there is no task or subset {name}; did you mean {near[0]}?")
    task = task_named(name)
    if not isinstance(task, Dataset):
        raise SpartaError(f"the task {name} makes its items itself: there is nothing to prepare")
    return task


def prepare_all(
    datasets: Sequence[Dataset | Subset], origin: Origin, folder: Path, screen: Screen
) -> list[Prepared]:
    """Prepare `datasets` below `folder`; one that fails does not stop the others."""
    done = []
    for number, dataset in enumerate(datasets, start=1):
        screen.say(
            f"[{number}/{len(datasets)}] {dataset.name}: reading {'the hub' if origin.folder is None else origin.folder}"
        )
        try:
            done.append(Prepared(dataset, prepare(dataset, origin, folder)))
        except SpartaError as error:
            done.append(Prepared(dataset, None, str(error)))
    return done


def prepare(dataset: Dataset | Subset, origin: Origin, folder: Path) -> Provenance:
    """Prepare one data set. Raises SpartaError where it cannot be, has no split at all, or, of a subset, no row."""
    raw = _raw(dataset, origin, folder)
    if isinstance(dataset, Subset):
        return _prepare_subset(dataset, raw, folder)
    splits: Splits = _read(raw)
    found = _found(splits)
    missing = {
        split: dataset.missing.get(split, "its source has none") for split in SPLITS if split not in found
    }
    if not found:
        raise SpartaError(
            f"nothing was found to make a split of: {'; '.join(dict.fromkeys(missing.values()))}"
        )
    return prepared.write(folder, dataset, found, _provenance(dataset, raw, splits, missing))


def _prepare_subset(subset: Subset, raw: Raw, folder: Path) -> Provenance:
    """Its rows without those that a task prepared in `folder` is scored on: what is learned is not what is measured."""
    tasks = [task for task in TASKS.values() if isinstance(task, Dataset)]
    scored = held_out(tasks, Data(task="all", folder=str(folder)))
    chats: Chats = _read(raw)
    kept = [chat for chat in chats.rows if not scored.asks(chat)]
    chats = Chats(tuple(kept), *_kept_clear(chats, len(chats.rows) - len(kept), scored))
    if isinstance(raw, LocalRaw) and not raw.read:
        raise SpartaError(
            f"{raw.folder} holds none of its files: copy {_described(subset.local, ' or ')} there, or leave --from out for the hub"
        )
    if not kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in chats.dropped.items())
        raise SpartaError(
            f"no row is left to learn from ({reasons or 'there is none'}): get its source again"
        )
    return prepared.write_chats(folder, subset.name, kept, _provenance(subset, raw, chats, {}))


def _kept_clear(chats: Chats, asked: int, scored: HeldOut) -> tuple[dict[str, int], tuple[str, ...]]:
    """What is dropped from `chats`, and what is to say of them, with the `asked` rows that ask what is scored on."""
    if not scored.tasks:
        return dict(chats.dropped), (
            *chats.notes,
            "compared with no evaluation, as no task is prepared here: prepare tasks before subsets",
        )
    dropped = (
        {**chats.dropped, "rows that ask what validation or test asks": asked} if asked else chats.dropped
    )
    return dict(dropped), (
        *chats.notes,
        f"kept clear of validation and test of {', '.join(scored.tasks)}, the tasks that are prepared here",
    )


def _provenance(
    dataset: Dataset | Subset, raw: Raw, made: Splits | Chats, missing: dict[Split, str]
) -> Provenance:
    return Provenance(
        task=dataset.name,
        source=raw.kind,
        licence=dataset.licence,
        files=raw.read,
        dropped=dict(made.dropped),
        notes=tuple(made.notes),
        missing=missing,
    )


def _described(local: Source[Any], between: str) -> str:
    return between.join(file.described for file in local.files.values() if isinstance(file, LocalFile))


def _raw(dataset: Dataset | Subset, origin: Origin, folder: Path) -> Raw:
    if origin.folder is not None:
        return LocalRaw(dataset.local, origin.folder)
    hub = dataset.single if origin.single and isinstance(dataset, Subset) else dataset.hub
    if hub is None and dataset.hub is not None:
        raise SpartaError(f"{dataset.name} has no repository of its own in a known form: leave --single out")
    if hub is None:
        raise SpartaError(
            f"{dataset.name} is on no hub: add --from FOLDER, with {_described(dataset.local, ', ')} below it"
        )
    last = None if origin.update else prepared.provenance(folder, dataset.name)
    recorded = {read.dataset: read.revision for read in last.files.values() if read.dataset} if last else {}
    return HubRaw(hub, recorded, dataset.local)


def _read(raw: Raw) -> Any:
    """What the Source makes of its rows. Raises SpartaError naming the row that cannot be used."""
    try:
        return raw.source.read(raw.rows)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if raw.current is None:
            raise
        place, row = raw.current
        raise SpartaError(f"{place}: {_why(error, row)}; take the row out, or get the file again") from error


def _why(error: Exception, row: Mapping[str, object]) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, KeyError) and error.args[0] not in row:
        return f"it has no {error.args[0]!r}, but {', '.join(row)}"
    if empty := [key for key, value in row.items() if value is None]:
        return f"it has null for {', '.join(empty)}"
    return f"not of the form that is known ({type(error).__name__}: {error})"


def _found(splits: Splits) -> dict[Split, Sequence[Item]]:
    every: Mapping[Split, Sequence[Item] | None] = {
        "train": splits.train,
        "validation": splits.validation,
        "test": splits.test,
    }
    return {split: items for split, items in every.items() if items}


def prepared_table(done: Sequence[Prepared], folder: Path) -> Table:
    """Items of each split, those of the paper, and which splits are missing."""
    table = Table(title=f"prepared in {folder}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("task")
    for heading in (*SPLITS, "in the paper's Table 4"):
        table.add_column(heading, justify="right")
    table.add_column("missing")
    for entry in done:
        if isinstance(entry.dataset, Subset):
            continue
        splits = entry.source.splits if entry.source else {}
        table.add_row(
            entry.dataset.name,
            *(f"{splits[split].items:,}" if split in splits else "–" for split in SPLITS),
            " / ".join(f"{count:,}" for count in entry.dataset.paper),
            ", ".join(entry.source.missing) if entry.source else "all",
        )
    return table


def subset_table(done: Sequence[Prepared], folder: Path) -> Table:
    """Chats of each subset, and what they are from."""
    table = Table(title=f"to learn from, in {folder}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("subset")
    table.add_column("chats", justify="right")
    table.add_column("from")
    for entry in done:
        if isinstance(entry.dataset, Subset):
            reads = entry.source.files.values() if entry.source else ()
            first, *more = dict.fromkeys(read.file or read.dataset for read in reads) or ("",)
            table.add_row(
                entry.dataset.name,
                f"{entry.source.splits['train'].items:,}" if entry.source else "–",
                f"{first} and {len(more)} more" if more else first,
            )
    return table


def _remarks(source: Provenance) -> Iterator[str]:
    for split, why in source.missing.items():
        yield f"{split} is missing: {why}"
    for reason, count in source.dropped.items():
        yield f"{count:,} dropped: {reason}"
    yield from source.notes


def report(done: Sequence[Prepared], folder: Path, screen: Screen) -> None:
    """Show what was prepared, and what there is to say about it. Raises SpartaError naming what could not be."""
    for table in (prepared_table(done, folder), subset_table(done, folder)):
        if table.row_count:
            screen.console.print(table)
    for entry in done:
        for remark in _remarks(entry.source) if entry.source else ():
            screen.say(f"{entry.dataset.name}: {remark}")
    _refuse(
        {entry.dataset.name: entry.failure for entry in done if entry.source is None}, len(done), "prepared"
    )


def _refuse(failures: Mapping[str, str], tried: int, done: str) -> None:
    """Raises SpartaError where there are failures, by the name of the data set; done: what they could not be."""
    if len(failures) == 1:
        [(name, why)] = failures.items()
        raise SpartaError(f"{name} could not be {done}: {why}")
    if failures:
        reasons = "".join(f"\n  {name}: {why}" for name, why in failures.items())
        raise SpartaError(f"{len(failures)} of {tried} could not be {done}:{reasons}")


def show(names: Sequence[str], number: int, folder: Path, screen: Screen) -> None:
    """Print the first `number` items of each split that is prepared, as models are asked, with what is right; of subsets the first chats.

    Raises SpartaError at the end naming the data sets that could not be shown.
    """
    datasets = datasets_named(names)
    failures: dict[str, str] = {}
    for dataset in datasets:
        try:
            for text in _examples(dataset, number, folder):
                screen.say(text)
        except SpartaError as error:
            failures[dataset.name] = str(error)
    _refuse(failures, len(datasets), "shown")


def _examples(dataset: Dataset | Subset, number: int, folder: Path) -> Iterator[str]:
    if isinstance(dataset, Subset):
        for chat in prepared.read_chats(folder, dataset.name)[:number]:
            yield "\n".join([f"=== {dataset.name} {chat.row_id}", *_spoken(chat), ""])
        return
    source = prepared.provenance(folder, dataset.name)
    for split in SPLITS:
        if source is not None and split not in source.splits:
            continue
        for item in dataset.items(split, Data(task=dataset.name, folder=str(folder)))[:number]:
            yield "\n".join(_shown(dataset, split, item))


def _spoken(row: Item | Chat) -> Iterator[str]:
    return (f"[{turn.role}] {turn.content}" for turn in row.messages)


def _shown(dataset: Dataset, split: Split, item: Item) -> Iterator[str]:
    yield f"=== {dataset.name} {split} {item.item_id}{f', {item.level}' if item.level else ''}"
    yield from _spoken(item)
    for label, text in item.choices.items():
        yield f"[choice {label}] {text}"
    for name, value in (
        ("answer", item.answer),
        ("right", ", ".join(item.right)),
        ("reference", item.reference),
    ):
        if value:
            yield f"[{name}] {value}"
    yield ""
