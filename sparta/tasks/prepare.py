"""Prepares data sets: reads them from the hub or raw files, splits and checks them, and writes them with their provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Split
from sparta.tasks.chats import Chats
from sparta.tasks.dataset import Dataset, LocalFile, Source, Splits
from sparta.tasks.prepared import SPLITS, Provenance
from sparta.tasks.raw_files import HubRaw, LocalRaw, Raw
from sparta.tasks.registry import TASKS
from sparta.tasks.sft_data.contamination import HeldOut, held_out
from sparta.tasks.sft_data.tulu import Subset


@dataclass(frozen=True)
class Origin:
    """The origin of raw rows.

    folder: the folder with the files; None: the hub. single: on the hub, use each subset's own repository instead of the Tulu-v2 mixture.
    update: use the latest revisions on the hub instead of those of the last preparation.
    """

    folder: Path | None = None
    single: bool = False
    update: bool = False


def prepare(dataset: Dataset | Subset, origin: Origin, folder: Path) -> Provenance:
    """Prepare one data set. Raises SpartaError if that is impossible, or if it has no split or (a subset) no row."""
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
    """Prepare a subset, without rows that contain validation or test questions of the tasks prepared in `folder`."""
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
        raise SpartaError(f"no row is left to train on ({reasons or 'there is none'}): get its source again")
    return prepared.write_chats(folder, subset.name, kept, _provenance(subset, raw, chats, {}))


def _kept_clear(chats: Chats, asked: int, scored: HeldOut) -> tuple[dict[str, int], tuple[str, ...]]:
    """The drop counts and notes of `chats`, including the `asked` rows that contain scored questions."""
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
    """The result of the Source's `read`. Raises SpartaError naming an invalid row."""
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
