"""What a task is: splits of items, and a grade for an answer."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from sparta.prompts import Message

Split = Literal["train", "validation", "test"]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of a data set. answer: what is right, None where there is no gold. level: the skill, subject or difficulty it belongs to."""

    item_id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    level: str | None = None


class Task(Protocol):
    """A data set. `items` are the same for the same arguments, and no two splits share one."""

    name: str

    def items(self, split: Split, n: int | None) -> Sequence[Item]:
        """The first `n` items of `split` (None: all), spread over the levels."""
        ...

    def grade(self, item: Item, text: str) -> float | None:
        """How right `text` is, in [0, 1]; None where it cannot be graded."""
        ...
