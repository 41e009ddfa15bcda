"""Makes disjoint splits: removes and counts duplicates and overlaps, and halves data by seed.

Two items are equal if their questions are, ignoring case and white space (sparta.tasks.prepared.content).
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from sparta.rng import stream
from sparta.tasks.base import Item
from sparta.tasks.prepared import content

T = TypeVar("T")


def shuffled(entries: Iterable[T], *name: int | str) -> list[T]:
    """`entries` in the random order called `name`: the same on every machine."""
    order = list(entries)
    stream("tasks", *name).shuffle(order)
    return order


def halved(
    items: Iterable[Item], name: str, validation: int, test: int | None = None
) -> tuple[list[Item], list[Item]]:
    """`items` in the random order called `name`, split into the first `validation` and the next `test` (None: the rest).

    The result depends on their questions, not on their order, because hub and files order them differently.
    """
    order = shuffled(sorted(items, key=content), name, "halves")
    return order[:validation], order[validation : None if test is None else validation + test]


def distinct(items: Iterable[Item], dropped: Counter[str], what: str) -> list[Item]:
    """`items` without those that repeat the question of an earlier one; these are counted in `dropped` under `what`."""
    first: dict[str, Item] = {}
    for item in items:
        if first.setdefault(content(item), item) is not item:
            dropped[f"{what}: asks what an earlier one asks"] += 1
    return list(first.values())


def apart(train: Iterable[Item], others: Iterable[Item], dropped: Counter[str]) -> list[Item]:
    """`train` without the items that are also in `others`, on which models are scored; these are counted in `dropped`."""
    taken = {content(item) for item in others}
    kept = []
    for item in train:
        if content(item) in taken:
            dropped["train: is scored on in validation or test"] += 1
        else:
            kept.append(item)
    return kept
