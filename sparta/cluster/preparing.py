"""What jobs/prepare_data.py does: raw rows in, checked splits and their provenance out, one data set after the other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from sparta.cluster.console import Screen
from sparta.errors import SpartaError
from sparta.recipe import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Split
from sparta.tasks.dataset import Dataset, LocalFile, Splits
from sparta.tasks.prepared import SPLITS, Provenance
from sparta.tasks.raw import HubRaw, LocalRaw, Raw
from sparta.tasks.registry import TASKS, task_named


@dataclass(frozen=True)
class Prepared:
    """What became of a data set: its provenance, or why there is none."""

    dataset: Dataset
    source: Provenance | None
    failure: str = ""


def datasets_named(names: Sequence[str]) -> list[Dataset]:
    """The data sets called `names`, each once; "all": all that there are. Raises SpartaError where one is unknown, or is not made from data."""
    every = [name for name, task in TASKS.items() if isinstance(task, Dataset)]
    wanted = dict.fromkeys(name for given in names for name in (every if given == "all" else [given]))
    return [_dataset(name) for name in wanted]


def _dataset(name: str) -> Dataset:
    if name == "own":
        raise SpartaError(
            "the task own reads its files itself, where data.train, data.validation and data.test name them: there is nothing to prepare"
        )
    task = task_named(name)
    if not isinstance(task, Dataset):
        raise SpartaError(f"the task {name} makes its items itself: there is nothing to prepare")
    return task


def prepare_all(
    datasets: Sequence[Dataset], origin: Path | None, folder: Path, update: bool, screen: Screen
) -> list[Prepared]:
    """Prepare `datasets` below `folder`; one that fails does not stop the others.

    origin: the folder that raw files lie below; None: the hub. update: take the hub's present revisions, not those of the last time.
    """
    done = []
    for number, dataset in enumerate(datasets, start=1):
        screen.say(
            f"[{number}/{len(datasets)}] {dataset.name}: reading {'the hub' if origin is None else origin}"
        )
        try:
            done.append(Prepared(dataset, prepare(dataset, origin, folder, update)))
        except SpartaError as error:
            done.append(Prepared(dataset, None, str(error)))
    return done


def prepare(dataset: Dataset, origin: Path | None, folder: Path, update: bool) -> Provenance:
    """Prepare one data set. Raises SpartaError where it cannot be, or has no split at all."""
    raw = _raw(dataset, origin, folder, update)
    splits = _read(raw)
    found = _found(splits)
    missing = {
        split: dataset.missing.get(split, "its source has none") for split in SPLITS if split not in found
    }
    if not found:
        raise SpartaError(
            f"nothing was found to make a split of: {'; '.join(dict.fromkeys(missing.values()))}"
        )
    source = Provenance(
        task=dataset.name,
        source=raw.kind,
        licence=dataset.licence,
        files=raw.read,
        dropped=dict(splits.dropped),
        notes=tuple(splits.notes),
        missing=missing,
    )
    return prepared.write(folder, dataset, found, source)


def _raw(dataset: Dataset, origin: Path | None, folder: Path, update: bool) -> Raw:
    if origin is not None:
        return LocalRaw(dataset.local, origin)
    if dataset.hub is None:
        files = [file.described for file in dataset.local.files.values() if isinstance(file, LocalFile)]
        raise SpartaError(f"{dataset.name} is on no hub: add --from FOLDER, with {', '.join(files)} below it")
    last = None if update else prepared.provenance(folder, dataset.name)
    recorded = {read.dataset: read.revision for read in last.files.values() if read.dataset} if last else {}
    return HubRaw(dataset.hub, recorded, dataset.local)


def _read(raw: Raw) -> Splits:
    """The splits of its rows. Raises SpartaError naming the row that cannot be used."""
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
        splits = entry.source.splits if entry.source else {}
        table.add_row(
            entry.dataset.name,
            *(f"{splits[split].items:,}" if split in splits else "–" for split in SPLITS),
            " / ".join(f"{count:,}" for count in entry.dataset.paper),
            ", ".join(entry.source.missing) if entry.source else "all",
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
    screen.console.print(prepared_table(done, folder))
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
    """Print the first `number` items of each split that is prepared, as models are asked, with what is right.

    Raises SpartaError at the end naming the data sets that could not be shown.
    """
    datasets = datasets_named(names)
    failures: dict[str, str] = {}
    for dataset in datasets:
        try:
            source = prepared.provenance(folder, dataset.name)
            for split in SPLITS:
                if source is not None and split not in source.splits:
                    continue
                for item in dataset.items(split, Data(task=dataset.name, folder=str(folder)))[:number]:
                    screen.say("\n".join(_shown(dataset, split, item)))
        except SpartaError as error:
            failures[dataset.name] = str(error)
    _refuse(failures, len(datasets), "shown")


def _shown(dataset: Dataset, split: Split, item: Item) -> Iterator[str]:
    yield f"=== {dataset.name} {split} {item.item_id}{f', {item.level}' if item.level else ''}"
    for turn in item.messages:
        yield f"[{turn.role}] {turn.content}"
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
