"""The interface of a task: splits of items, and grading of answers to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from sparta.chat.template import Message
from sparta.grading.rubrics import Rubric
from sparta.recipes.data import Data
from sparta.recipes.data import Split as Split


class Item(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"item_id": "id"}
):
    """One item of a data set, a line of its normalised JSONL.

    messages: the prompt. reference: a complete good answer, for training on gold answers and for judges. choices: text by label.
    answer: the right answer: a text, a number or the label of a choice; None if there is none. right: labels of all right choices, if
    there are several. level: its skill, subject or difficulty.
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
    """One metric of a task; higher is better. top: the best value. rubric: for metrics graded by a judge."""

    name: str
    top: float = 1.0
    rubric: Rubric | None = None


class Task(Protocol):
    """A data set and its grader. No two splits share an item."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics; checkpoints are selected by the first."""
        ...

    @property
    def chat_template(self) -> bool:
        """Whether evaluation uses the chat template (C.5)."""
        ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings without the chat template: how a model would continue plain text after its answer."""
        ...

    @property
    def likelihood(self) -> bool:
        """Whether choices are scored by log-likelihood, without generation."""
        ...

    @property
    def grading(self) -> str:
        """How answers are graded, if the recipe sets it and may change it during a run; else ""."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of how `items` read the training split, a sentence each."""
        ...

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        """All items of `split`, always in the same order. Raises SpartaError with a remedy if the split is missing."""
        ...

    def posed(self, item: Item) -> Item:
        """`item` as shown to models and judges in an evaluation. States store items without this change."""
        ...

    def in_combat(self, item: Item) -> Item:
        """`item` as shown to contestants and judges in a combat. Tasks whose evaluation asks for one word ask for more here, because most
        one-word answers would be equal and tell judges nothing.
        """
        ...

    def plain(self, item: Item) -> tuple[Message, ...]:
        """The messages of `item` (as `posed`) without the chat template: with text around them that makes a model continue with an answer."""
        ...

    def grade(self, item: Item, text: str) -> dict[str, float]:
        """The automatic metrics of the answer `text`; a metric that cannot be graded is left out."""
        ...

    def score_likelihoods(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        """Metrics of an item from the log-likelihoods (nats, by label) of its choices; a metric that cannot be graded is left out."""
        ...
