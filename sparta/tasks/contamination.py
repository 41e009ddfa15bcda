"""Rows to learn from that models are also scored on: found by runs of words, and left out."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from sparta.tasks import prepared
from sparta.tasks.base import Item, Split
from sparta.tasks.chats import Chat

RUN = 13
"""Words in a row that two texts do not share by chance."""
SCORED: tuple[Split, ...] = ("validation", "test")
_WORD = re.compile(r"\w+")


class HeldOut:
    """The questions of items that models are scored on.

    tasks: whose they are. What all questions of a split have in common at their beginning and end is the task's form, and not counted.
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
        """Whether a user turn of `chat` shares RUN words in a row with a question, or, where both are shorter, is it; case and punctuation aside."""
        return any(
            not self._runs.isdisjoint(_runs(_words(turn.content)))
            for turn in chat.messages
            if turn.role == "user"
        )


def held_out(folder: Path, tasks: Iterable[str]) -> HeldOut:
    """Validation and test of those of `tasks` that are prepared in `folder`."""
    found = HeldOut()
    for task in tasks:
        source = prepared.provenance(folder, task)
        if source is not None and (there := [split for split in SCORED if split in source.splits]):
            found.add(task, (prepared.read(folder, task, split) for split in there))
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _own_words(items: Sequence[Item]) -> Iterator[list[str]]:
    """The words of each item's messages, without those that all have in common at the beginning and at the end."""
    texts = [_words("\n".join(turn.content for turn in item.messages)) for item in items]
    before = _in_common(texts)
    after = _in_common([text[before:][::-1] for text in texts])
    for text in texts:
        yield text[before : len(text) - after]


def _in_common(texts: Sequence[list[str]]) -> int:
    """How many words all of `texts` begin with; none where there is but one text, of which nothing is known to be form."""
    if len(texts) < 2:
        return 0
    # What the first and the last in order have in common, all between them have.
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(texts), max(texts), strict=False))
    )


def _runs(words: list[str]) -> set[int]:
    """Hashes of all runs of RUN words; of a shorter text, of the whole."""
    if len(words) < RUN:
        return {hash(tuple(words))} if words else set()
    return {hash(tuple(words[start : start + RUN])) for start in range(len(words) - RUN + 1)}
