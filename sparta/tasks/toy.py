"""The toy task: ten small skills with exact answers, made by seed (see sparta.toy.family)."""

from collections.abc import Sequence

from sparta.prompts import Message
from sparta.tasks.base import Item, Split
from sparta.toy import family

SIZES: dict[Split, int] = {"train": 2000, "validation": 300, "test": 600}
SEED = 0


class Toy:
    name = "toy"

    def items(self, split: Split, n: int | None) -> Sequence[Item]:
        return [
            Item(item.id, (Message("user", item.question),), answer=item.answer, level=item.skill)
            for item in family.items(split, n or SIZES[split], SEED)
        ]

    def grade(self, item: Item, text: str) -> float | None:
        return float(family.is_right(item.answer or "", text))
