"""What a data set says of itself: where its raw rows come from, how they become items, how an answer is asked for and graded.

The twelve of the paper are in the modules beside this one; the subsets that experts learn from have Sources of the same kind (subsets.py).
Raw rows are opened by raw.py, what is made of them is kept by prepared.py.
"""

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from sparta.chat.template import Message
from sparta.recipes.schema import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.scaffold import BARE, Scaffold

Made = TypeVar("Made", covariant=True)
Rows = Callable[[str], Iterator[dict[str, Any]]]
"""The raw rows of the file or split with that key in `Source.files`; none where it is optional and absent."""


@dataclass(frozen=True)
class LocalFile:
    """A file below the folder that a person names.

    name: its own. within: name of a folder somewhere above it, where its own would not do. origin: where a person gets it: repository and
    path. parts: of a file that is one object, the keys that its rows are under, in their order: lists, or objects by id, which a row then
    has as `id`; none: the file is its rows. columns: of a table whose first line does not name them, their names; nothing is quoted there.
    """

    name: str
    within: str = ""
    origin: str = ""
    parts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """The file as a person finds or puts it, and where it is from: gsm8k/train.jsonl, with or without folders between."""
        place = f"{self.within}/{self.name}" if self.within else self.name
        return f"{place} ({self.origin})" if self.origin else place


@dataclass(frozen=True)
class HubSplit:
    """A split on the Hugging Face hub. revision: commit of the data set's repository; "": the one that is current when it is prepared.

    column, only: take the rows alone whose `column` is `only`, or begins so before a dot.
    """

    dataset: str
    config: str | None
    split: str
    revision: str = ""
    column: str = ""
    only: str = ""


@dataclass(frozen=True)
class Splits:
    """Items made from raw rows. A split is None where its rows were not there. dropped: how many rows were left out, by reason."""

    train: tuple[Item, ...] | None = None
    validation: tuple[Item, ...] | None = None
    test: tuple[Item, ...] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(Generic[Made]):
    """One place that a data set can be made from. optional: keys of files that may be absent; the splits they serve are then missing.

    read: takes a row before it asks for the next one, and raises ValueError, in words that follow the row's place, where it cannot be used.
    """

    files: Mapping[str, LocalFile | HubSplit]
    read: Callable[[Rows], Made]
    optional: frozenset[str] = frozenset()


def _nothing(item: Item, given: Any) -> dict[str, float]:
    return {}


def _as_it_is(item: Item) -> Item:
    return item


@dataclass(frozen=True)
class Dataset:
    """A Task on prepared data. It has one of grader (of a text) and weigher (of log-likelihoods), or neither where a judge gives all metrics.

    combat: how an item is asked in a combat, where an evaluation asks for less. paper: numbers of items in the paper's Table 4: train, validation, test. missing: for splits that a source may lack, why, and what to get.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    chat_template: bool
    max_new_tokens: int
    local: Source[Splits]
    hub: Source[Splits] | None
    licence: str
    paper: tuple[int, int, int]
    grader: Callable[[Item, str], dict[str, float]] = _nothing
    weigher: Callable[[Item, Mapping[str, float]], dict[str, float]] = _nothing
    combat: Callable[[Item], Item] = _as_it_is
    scaffold: Scaffold = BARE
    stop: tuple[str, ...] = ()
    missing: Mapping[Split, str] = field(default_factory=dict)
    grading: ClassVar[str] = ""

    @property
    def likelihood(self) -> bool:
        return self.weigher is not _nothing

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        found = prepared.read(prepared.folder_of(data), self.name, split)
        return [
            msgspec.structs.replace(item, messages=self.scaffold.removed(item.messages)) for item in found
        ]

    def posed(self, item: Item) -> Item:
        return item

    def in_combat(self, item: Item) -> Item:
        return self.combat(item)

    def plain(self, item: Item) -> tuple[Message, ...]:
        return self.scaffold.added(item.messages)

    def grade(self, item: Item, text: str) -> dict[str, float]:
        return self.grader(item, text)

    def weigh(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        return self.weigher(item, logs)


def asked(text: str) -> tuple[Message, ...]:
    """The messages of an item that is asked in one turn."""
    return (Message("user", text),)


def with_another_end(item: Item, end: str, other: str) -> Item:
    """`item` with `other` where what it asks ends with `end`; one that ends otherwise stays as it is."""
    *before, last = item.messages
    if not last.content.endswith(end):
        return item
    reworded = Message(last.role, last.content.removesuffix(end) + other)
    return msgspec.structs.replace(item, messages=(*before, reworded))


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Choices by their letters: A, B, ..."""
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def label_among(answer: Any, choices: Mapping[str, str]) -> str:
    """The label `answer` of a raw row. Raises ValueError where it is none of `choices`."""
    if answer not in choices:
        raise ValueError(f"its answer {answer!r} is none of its choices ({', '.join(choices)})")
    return str(answer)


def multiple_choice(question: str, choices: Mapping[str, str]) -> str:
    """A question and, on a line each, its choices with their letters."""
    return "\n".join([question, *(f"{label}. {text}" for label, text in choices.items())])


def right_letter(item: Item, text: str, things: Sequence[str] = ()) -> dict[str, float]:
    """Accuracy of an answer to a multiple-choice item: whether it decides for the right letter, and no other; ungraded where a person could not tell.

    things: words that together with a letter before them name something in this data set, and no choice.
    """
    from sparta.grading.letters import same_letter

    same = same_letter((item.answer or "",), text, tuple(item.choices), things)
    return {} if same is None else {"accuracy": float(same)}
