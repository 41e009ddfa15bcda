"""What a task is: splits of items, and grades for answers to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from sparta.chat.template import Message
from sparta.grading.rubrics import Rubric
from sparta.recipes.schema import Data

Split = Literal["train", "validation", "test"]


class Item(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"item_id": "id"}
):
    """One item of a data set, a line of its normalised JSONL.

    messages: what the model is asked. reference: a whole good answer, for training on gold and for judges. choices: text by label.
    answer: what is right: a text, a number, the label of the right choice; None where there is no gold. right: labels of all choices
    that are right, where several are. level: the skill, subject or difficulty it belongs to.
    """

    item_id: str
    messages: tuple[Message, ...]
    reference: str | None = None
    choices: dict[str, str] = {}
    answer: str | None = None
    right: tuple[str, ...] = ()
    level: str | None = None


@dataclass(frozen=True)
class Metric:
    """One number that a task scores answers by; higher is better. top: the best value. rubric: of those that a judge gives."""

    name: str
    top: float = 1.0
    rubric: Rubric | None = None


class Task(Protocol):
    """A data set and its grader. No two splits share an item."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The first is the one that checkpoints are chosen by."""
        ...

    @property
    def chat_template(self) -> bool:
        """Whether evaluation asks through the chat template (C.5)."""
        ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer where the chat template is left out: what bare text would go on with."""
        ...

    @property
    def likelihood(self) -> bool:
        """Whether choices are weighed by their log-likelihood and nothing is written."""
        ...

    @property
    def grading(self) -> str:
        """How answers are graded, where the recipe says it and may say otherwise another time; else ""."""
        ...

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        """All items of `split`, always in the same order. Raises SpartaError where the split is missing, saying what to do."""
        ...

    def posed(self, item: Item) -> Item:
        """`item` as models are asked it in an evaluation and its judge sees it. Items are written down as they were before."""
        ...

    def in_combat(self, item: Item) -> Item:
        """`item` as contestants are asked it and judges see it. An answer of one word is for graders: most would be equal, and judges learn
        nothing from them.
        """
        ...

    def plain(self, item: Item) -> tuple[Message, ...]:
        """The messages of `item`, as it is posed, where the chat template is left out: with what makes a model go on with an answer."""
        ...

    def grade(self, item: Item, text: str) -> dict[str, float]:
        """Metrics of the answer `text` that a program gives; one that cannot be graded is left out."""
        ...

    def weigh(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        """Metrics of an item whose choices have these log-likelihoods (nats, by label); one that cannot be graded is left out."""
        ...
