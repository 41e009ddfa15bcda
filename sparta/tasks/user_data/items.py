"""Items made of a user's rows."""

import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.tasks.base import Item
from sparta.tasks.prepared import flaw
from sparta.tasks.user_data.forms import Form, Unusable, form_of, in_own_form, renamed, unused_of
from sparta.tasks.user_data.sources import UserSource, broken


@dataclass
class UserItems:
    """The items of `source`, made while iterating. form, unused, dropped: what the last iteration found.

    named: the form, "auto" for the one that the first row has. columns: our name -> theirs. unused: columns that were not read. dropped: rows
    that were left out, by reason.
    """

    source: UserSource
    named: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    form: Form | None = None
    unused: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Item]]:
        """Yields the place and the item of each row. Raises SpartaError naming file and place of an invalid row."""
        seen: dict[str, str] = {}
        unused: dict[str, None] = {}
        dropped: Counter[str] = Counter()
        self.form, self.unused, self.dropped = None, (), {}
        for number, (place, raw) in enumerate(self.source.rows(), start=1):
            try:
                item = self._item(raw, _number(place, number), unused)
            except Unusable as why:
                dropped[str(why)] += 1
                continue
            except ValueError as error:
                raise broken(self.source, place, str(error)) from None
            if item.item_id in seen:
                raise SpartaError(
                    f"{self.source.title}, {place}: the prompt id {item.item_id} was used in {seen[item.item_id]} already: "
                    "give every prompt an id of its own, or leave ids out"
                )
            seen[item.item_id] = place
            yield place, item
        self.unused, self.dropped = tuple(unused), dict(dropped)

    def _item(self, raw: Mapping[str, Any], number: int, unused: dict[str, None]) -> Item:
        row = renamed(raw, self.columns)
        if self.form is None:
            self.form = form_of(row, self.named)
        if not self.form.fits(row):
            # The error names the columns, or the key that looks misspelt.
            form_of(row, self.form.name if self.named != "auto" else "auto")
            raise ValueError(f"it lacks {self.form.described}, which the rows before it have")
        unused.update(dict.fromkeys(unused_of(self.form, row)))
        return _item(in_own_form(self.form, row), number)

    @property
    def notes(self) -> list[str]:
        """What people should know of the last iteration, a sentence each."""
        found = []
        if self.form is not None and not self.form.strict:
            rest = f"; not used: {', '.join(self.unused)}" if self.unused else ""
            found.append(f"{self.source.title}: {self.form.name} form ({self.form.described}){rest}")
        found += [f"{self.source.title}: {count:,} {why} left out" for why, count in self.dropped.items()]
        return found


def items_by_place(read: UserItems) -> dict[str, Item]:
    """All items by place. Raises SpartaError as iterating does, and where there is none."""
    items = dict(read)
    if not items:
        raise SpartaError(
            f"{read.source.title} has no instructions: at least one is needed, check {read.source.key}"
        )
    return items


def _number(place: str, number: int) -> int:
    """The number in ids: of the line, where there are lines."""
    return int(place.removeprefix("line ")) if place.startswith("line ") else number


def _item(row: Mapping[str, Any], number: int) -> Item:
    """The item of a row in the suite's own form. Raises ValueError with the reason if it is invalid."""
    messages = _messages(row)
    if messages[-1].role != "user":
        raise ValueError("the last message must be the user's, or the assistant's after it")
    item = Item(
        _id(row.get("id", f"p{number:06d}")),
        messages,
        reference=_text(row, "reference"),
        choices=_choices(row.get("choices", {})),
        answer=_text(row, "answer"),
        right=_labels(row.get("right", [])),
        level=_text(row, "level"),
    )
    if why := flaw(item, answer=False, choices=False):
        raise ValueError(f"{item.item_id} {why}")
    try:
        msgspec.json.encode(item)
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate), which no file can hold") from None
    return item


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError("the id is neither text nor a whole number")
    return str(value)


def _messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("give either prompt or messages")
    try:
        messages = (
            msgspec.convert(row["messages"], tuple[Message, ...])
            if "messages" in row
            else (Message("user", row["prompt"]),)
        )
    except msgspec.ValidationError as error:
        raise ValueError(f"messages are not a list of role and content ({error})") from None
    if not messages or not all(isinstance(turn.content, str) and turn.content.strip() for turn in messages):
        raise ValueError("the prompt is empty or no text")
    return messages


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise ValueError(f"{key} is empty or neither a text nor a number")
    return str(value)


def _choices(value: Any) -> dict[str, str]:
    if isinstance(value, list):
        if len(value) > len(string.ascii_uppercase):
            raise ValueError(
                f"choices are more than {len(string.ascii_uppercase)}: there are no more letters"
            )
        value = dict(zip(string.ascii_uppercase, value, strict=False))
    if not isinstance(value, dict) or len(value) == 1:
        raise ValueError("choices are neither an object of label and text nor a list of texts, two at least")
    found = {label: _text(value, label) for label in value}
    if bad := [label for label, text in found.items() if text is None or not label.strip()]:
        raise ValueError(f"choice {bad[0]!r} has no text or no label")
    return {label: text for label, text in found.items() if text is not None}


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise ValueError("right is no list of labels")
    return tuple(value)
