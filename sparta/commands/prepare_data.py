"""What jobs/prepare_data.py does: reads raw rows, writes checked splits and their provenance, one data set after the other.

A data set belongs to a task that models are scored on, or is a subset of chats that an expert is trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from sparta.errors import SpartaError
from sparta.names import nearest
from sparta.recipes.data import Data
from sparta.screen import Screen
from sparta.tasks import prepared
from sparta.tasks.base import Item, Split
from sparta.tasks.chats import Chat
from sparta.tasks.dataset import Dataset
from sparta.tasks.prepare import Origin, prepare
from sparta.tasks.prepared import SPLITS, Provenance
from sparta.tasks.registry import TASKS, task_named
from sparta.tasks.sft_data.tulu import SFT_DATA, SUBSETS, Subset


@dataclass(frozen=True)
class PreparedData:
    """The result for one data set: its provenance, or why it failed."""

    dataset: Dataset | Subset
    source: Provenance | None
    failure: str = ""


def datasets_named(names: Sequence[str]) -> list[Dataset | Subset]:
    """The data sets called `names`, each once. Tasks come before subsets, because subsets leave out the questions that tasks score on.

    "all": all tasks; "subsets": the paper's ten. Raises SpartaError where a name is unknown, or needs no preparation.
    """
    groups = {
        "all": [name for name, task in TASKS.items() if isinstance(task, Dataset)],
        "subsets": list(SUBSETS),
    }
    expanded = dict.fromkeys(name for given in names for name in groups.get(given, [given]))
    return sorted(map(_dataset, expanded), key=lambda dataset: isinstance(dataset, Subset))


def _dataset(name: str) -> Dataset | Subset:
    if name in SFT_DATA:
        return SFT_DATA[name]
    if name == "own":
        raise SpartaError(
            "the task own needs no preparation: it reads the files that data.train, data.validation and data.test name"
        )
    near = nearest(name, (*TASKS, *SFT_DATA))
    if near in SFT_DATA:
        raise SpartaError(f"there is no task or subset {name}; did you mean {near}?")
    task = task_named(name)
    if not isinstance(task, Dataset):
        raise SpartaError(f"the task {name} generates its items and needs no preparation: leave it out")
    return task


def prepare_all(
    datasets: Sequence[Dataset | Subset], origin: Origin, folder: Path, screen: Screen
) -> list[PreparedData]:
    """Prepare `datasets` below `folder`; one that fails does not stop the others."""
    done = []
    for number, dataset in enumerate(datasets, start=1):
        screen.say(
            f"[{number}/{len(datasets)}] {dataset.name}: reading {'the hub' if origin.folder is None else origin.folder}"
        )
        try:
            done.append(PreparedData(dataset, prepare(dataset, origin, folder)))
        except SpartaError as error:
            done.append(PreparedData(dataset, None, str(error)))
    return done


def prepared_table(done: Sequence[PreparedData], folder: Path) -> Table:
    """Items of each split, the paper's numbers, and which splits are missing."""
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


def subset_table(done: Sequence[PreparedData], folder: Path) -> Table:
    """Chats of each subset, and their source."""
    table = Table(title=f"SFT subsets in {folder}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("subset")
    table.add_column("chats", justify="right")
    table.add_column("from")
    for entry in done:
        if isinstance(entry.dataset, Subset):
            sources = entry.source.files.values() if entry.source else ()
            first, *more = dict.fromkeys(source.file or source.dataset for source in sources) or ("",)
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


def report(done: Sequence[PreparedData], folder: Path, screen: Screen) -> None:
    """Print what was prepared, with notes. Raises SpartaError naming the data sets that failed."""
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
    """Raises SpartaError where there are failures. failures: reasons by data set. done: the verb, such as "prepared"."""
    if len(failures) == 1:
        [(name, why)] = failures.items()
        raise SpartaError(f"{name} could not be {done}: {why}")
    if failures:
        reasons = "".join(f"\n  {name}: {why}" for name, why in failures.items())
        raise SpartaError(f"{len(failures)} of {tried} could not be {done}:{reasons}")


def show(names: Sequence[str], number: int, folder: Path, screen: Screen) -> None:
    """Print the first `number` items of each prepared split, as prompts with their right answers, or the first chats of each subset.

    Raises SpartaError at the end, naming the data sets that could not be shown.
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
            yield "\n".join([f"=== {dataset.name} {chat.row_id}", *_turns(chat), ""])
        return
    source = prepared.provenance(folder, dataset.name)
    for split in SPLITS:
        if source is not None and split not in source.splits:
            continue
        for item in dataset.items(split, Data(task=dataset.name, folder=str(folder)))[:number]:
            yield "\n".join(_shown(dataset, split, item))


def _turns(row: Item | Chat) -> Iterator[str]:
    return (f"[{turn.role}] {turn.content}" for turn in row.messages)


def _shown(dataset: Dataset, split: Split, item: Item) -> Iterator[str]:
    yield f"=== {dataset.name} {split} {item.item_id}{f', {item.level}' if item.level else ''}"
    yield from _turns(dataset.in_combat(item) if split == "train" else dataset.posed(item))
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
