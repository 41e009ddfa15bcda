"""The definition of a data set: where its raw rows come from, how they become items, how answers are requested and graded.

The paper's data sets are in benchmarks/; the subsets for experts use the same Sources (sft_data/tulu.py). raw_files.py reads raw rows,
prepared.py stores the items.
"""

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from sparta.chat.template import Message
from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.scaffold import BARE, Scaffold

Made = TypeVar("Made", covariant=True)
Rows = Callable[[str], Iterator[dict[str, Any]]]
"""Returns the raw rows of the file or split with a key of `Source.files`; no rows if it is optional and missing."""


@dataclass(frozen=True)
class LocalFile:
    """A file below the folder that the user names.

    name: file name. within: the name of a folder above it, if the file name alone is ambiguous. origin: where to get it: repository and
    path. parts: for a file with one JSON object, the keys of its rows, in order: lists, or objects by id (rows then get the key `id`);
    empty: the file holds the rows directly. columns: the column names of a table without a header line, which has no quoting.
    """

    name: str
    within: str = ""
    origin: str = ""
    parts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """The file's place and origin, for messages: gsm8k/train.jsonl, with or without folders between."""
        place = f"{self.within}/{self.name}" if self.within else self.name
        return f"{place} ({self.origin})" if self.origin else place


@dataclass(frozen=True)
class HubSplit:
    """A split on the Hugging Face hub. revision: commit of the data set's repository; "": the latest when it is prepared.

    column, only: take only the rows whose `column`, up to the first dot, is `only`.
    """

    dataset: str
    config: str | None
    split: str
    revision: str = ""
    column: str = ""
    only: str = ""


@dataclass(frozen=True)
class Splits:
    """Items made from raw rows. A split is None if its rows are missing. dropped: counts of dropped rows, by reason."""

    train: tuple[Item, ...] | None = None
    validation: tuple[Item, ...] | None = None
    test: tuple[Item, ...] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source(Generic[Made]):
    """One source of a data set. optional: keys of files that may be absent; their splits are then missing.

    read: makes the items or chats. It processes each row before it takes the next, and raises ValueError for an invalid row, with a
    message that continues the row's place.
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
    """A Task on prepared data. It has either a grader (of a text) or a likelihood_scorer (of log-likelihoods), or neither if a judge gives all metrics.

    combat: changes an item for combats, where evaluation asks for shorter answers. paper: numbers of items in the paper's Table 4 (train,
    validation, test). missing: for splits that a source may lack, the reason and the remedy.
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
    likelihood_scorer: Callable[[Item, Mapping[str, float]], dict[str, float]] = _nothing
    combat: Callable[[Item], Item] = _as_it_is
    scaffold: Scaffold = BARE
    stop: tuple[str, ...] = ()
    missing: Mapping[Split, str] = field(default_factory=dict)
    grading: ClassVar[str] = ""
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def likelihood(self) -> bool:
        return self.likelihood_scorer is not _nothing

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

    def score_likelihoods(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        return self.likelihood_scorer(item, logs)


def user_turn(text: str) -> tuple[Message, ...]:
    """The messages of an item with a single user turn."""
    return (Message("user", text),)


def with_another_end(item: Item, end: str, other: str) -> Item:
    """`item` with the ending `end` of its last message replaced by `other`; unchanged if it ends differently."""
    *before, last = item.messages
    if not last.content.endswith(end):
        return item
    reworded = Message(last.role, last.content.removesuffix(end) + other)
    return msgspec.structs.replace(item, messages=(*before, reworded))


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Choices labelled with letters: A, B, ..."""
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def label_among(answer: Any, choices: Mapping[str, str]) -> str:
    """The label `answer` of a raw row. Raises ValueError where it is none of `choices`."""
    if answer not in choices:
        raise ValueError(f"its answer {answer!r} is none of its choices ({', '.join(choices)})")
    return str(answer)


def multiple_choice(question: str, choices: Mapping[str, str]) -> str:
    """A question followed by its choices, one per line with their letters."""
    return "\n".join([question, *(f"{label}. {text}" for label, text in choices.items())])


def right_letter(item: Item, text: str, things: Sequence[str] = ()) -> dict[str, float]:
    """Accuracy of an answer to a multiple-choice item: whether it decides for the right letter; ungraded if it is ambiguous.

    things: words of this data set that form another name with a letter before them, so that the letter is no choice.
    """
    from sparta.grading.letters import same_letter

    same = same_letter((item.answer or "",), text, tuple(item.choices), things)
    return {} if same is None else {"accuracy": float(same)}
