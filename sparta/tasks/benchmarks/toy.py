"""The toy task: ten small skills with exact answers, made by seed (see sparta.toy.family)."""

from collections.abc import Mapping, Sequence

from sparta.chat.template import Message
from sparta.recipes.data import Data
from sparta.tasks.base import Item, Metric, Split
from sparta.toy import family

SIZES: dict[Split, int] = {"train": 2000, "validation": 300, "test": 600}
SEED = 0


class Toy:
    name = "toy"
    metrics: tuple[Metric, ...] = (Metric("accuracy"),)
    chat_template = True
    max_new_tokens = 8
    stop: tuple[str, ...] = ()
    likelihood = False
    grading = ""
    notes = ()

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        """SIZES items of `split`; for training, data.size items if it is set."""
        n = data.size if split == "train" and data.size else SIZES[split]
        return [
            Item(item.id, (Message("user", item.question),), answer=item.answer, level=item.skill)
            for item in family.items(split, n, SEED)
        ]

    def posed(self, item: Item) -> Item:
        return item

    def in_combat(self, item: Item) -> Item:
        return item

    def plain(self, item: Item) -> tuple[Message, ...]:
        return item.messages

    def grade(self, item: Item, text: str) -> dict[str, float]:
        return {"accuracy": float(family.is_right(item.answer or "", text))}

    def score_likelihoods(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        return {}
