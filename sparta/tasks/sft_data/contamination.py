"""Finds training rows that contain evaluation questions, by shared word n-grams."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Split, Task
from sparta.tasks.chats import Chat
from sparta.tasks.dataset import Dataset

RUN = 13
"""Length of an n-gram in words; two texts rarely share one this long by chance."""
SCORED: tuple[Split, ...] = ("validation", "test")
_WORD = re.compile(r"\w+")


class HeldOut:
    """The questions on which models are scored.

    tasks: their tasks. The beginning and end that all questions of a split share are the task's template, and ignored.
    """

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self._runs: set[int] = set()

    def add(self, task: str, splits: Iterable[Sequence[Item]]) -> None:
        self.tasks.append(task)
        for items in splits:
            for words in _own_words(items):
                self._runs.update(_runs(words))

    def asks(self, chat: Chat) -> bool:
        """Whether a user turn of `chat` shares RUN consecutive words with a question or, if both are shorter, equals it (ignoring case and
        punctuation).
        """
        return bool(self._runs) and any(
            not self._runs.isdisjoint(_runs(_words(turn.content)))
            for turn in chat.messages
            if turn.role == "user"
        )


def held_out(tasks: Iterable[Task], data: Data) -> HeldOut:
    """The validation and test questions of the `tasks` that are available: prepared in the folder of `data`, or in its files."""
    found = HeldOut()
    for task in tasks:
        if there := [split for split in SCORED if _is_there(task, split, data)]:
            found.add(task.name, (task.items(split, data) for split in there))
    return found


def _is_there(task: Task, split: Split, data: Data) -> bool:
    if isinstance(task, Dataset):
        source = prepared.provenance(prepared.folder_of(data), task.name)
        return source is not None and split in source.splits
    return task.name != "own" or getattr(data, split) is not None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _own_words(items: Sequence[Item]) -> Iterator[list[str]]:
    """The words of each item's messages, without the common beginning and end of all items."""
    texts = [_words("\n".join(turn.content for turn in item.messages)) for item in items]
    before = _in_common(texts)
    after = _in_common([text[before:][::-1] for text in texts])
    for text in texts:
        yield text[before : len(text) - after]


def _in_common(texts: Sequence[list[str]]) -> int:
    """The number of words at the beginning that all `texts` share; 0 for a single text, whose template is unknown."""
    if len(texts) < 2:
        return 0
    # The common prefix of the first and last in sorted order is common to all.
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(texts), max(texts), strict=False))
    )


def _runs(words: list[str]) -> set[int]:
    """Hashes of all n-grams of RUN words; for a shorter text, the hash of the whole."""
    if len(words) < RUN:
        return {hash(tuple(words))} if words else set()
    return set(map(hash, zip(*(words[start:] for start in range(RUN)), strict=False)))
