"""Chats for supervised training: converts rows of any publisher to one format; rows that cannot be used are dropped and counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from sparta.chat.template import Message
from sparta.store import files

Turn = tuple[str, str | None]
"""A turn: the publisher's name of the role, and the text."""
ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard"), "assistant"),
}


class Chat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"row_id": "id"}
):
    """One chat for supervised training, a line of its normalised JSONL. The last message is the assistant's; the loss is on its turns."""

    row_id: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Chats:
    """Chats made from raw rows. dropped: counts of dropped rows and turns, by reason."""

    rows: tuple[Chat, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collected(rows: Iterable[tuple[str, Iterable[Turn]]], notes: Sequence[str] = ()) -> Chats:
    """The chats of `rows` (id, turns), without exact duplicates.

    No text is invented: a chat is truncated before an empty turn, because the rest would answer nothing; consecutive turns of one role
    are joined by a blank line; an answer before any question and a question at the end are removed; a row without an answer is dropped.
    Raises ValueError for an unknown role.
    """
    dropped: Counter[str] = Counter()
    joined = 0
    kept: dict[tuple[Message, ...], Chat] = {}
    for row_id, turns in rows:
        messages, together = _messages(turns, dropped)
        if not messages:
            continue
        joined += together
        chat = Chat(row_id, messages)
        try:
            files.encode_row(chat)
        except UnicodeEncodeError:
            dropped["rows with half a character (a lone surrogate), which no file can hold"] += 1
            continue
        if kept.setdefault(messages, chat) is not chat:
            dropped["rows that are word for word an earlier one"] += 1
    joins = (
        [f"{joined:,} turns joined to the one before, which is of the same role, by a blank line"]
        if joined
        else []
    )
    return Chats(tuple(kept.values()), dict(dropped), (*notes, *joins))


def _messages(turns: Iterable[Turn], dropped: Counter[str]) -> tuple[tuple[Message, ...], int]:
    """The usable turns of a chat, empty if there are none, and how many were joined to the previous one."""
    messages: list[Message] = []
    taken_out: Counter[str] = Counter()
    joined = 0
    for speaker, text in turns:
        if speaker not in ROLES:
            raise ValueError(f"a turn is of {speaker!r}, none of {', '.join(ROLES)}")
        role, content = ROLES[speaker], text or ""
        if not content.strip():
            if role == "system":
                continue
            taken_out["chats cut before an empty turn"] += 1
            break
        if messages and messages[-1].role == role:
            messages[-1] = Message(role, f"{messages[-1].content}\n\n{content}")
            joined += 1
        elif role == "assistant" and not any(turn.role == "user" for turn in messages):
            taken_out["turns that answer before any question"] += 1
        elif role == "system" and messages:
            dropped["rows with a system turn in their middle"] += 1
            return (), 0
        else:
            messages.append(Message(role, content))
    if messages and messages[-1].role == "user":
        messages.pop()
        taken_out["last turns that are the user's"] += 1
    if not messages or messages[-1].role != "assistant":
        dropped["rows without an answer"] += 1
        return (), 0
    dropped.update(taken_out)
    return tuple(messages), joined
