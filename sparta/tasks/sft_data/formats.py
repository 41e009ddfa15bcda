"""Publishers' chat formats: converts the rows of a file to the turns of each chat."""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from sparta.tasks.chats import Turn
from sparta.tasks.dataset import multiple_choice

Form = Callable[[Iterator[dict[str, Any]]], Iterator[list[Turn]]]


def _each(turns_of: Callable[[dict[str, Any]], list[Turn]]) -> Form:
    """A format with one chat per row."""
    return lambda rows: map(turns_of, rows)


@_each
def messages(row: dict[str, Any]) -> list[Turn]:
    return [(turn["role"], turn["content"]) for turn in row["messages"]]


@_each
def conversations(row: dict[str, Any]) -> list[Turn]:
    return [(turn["from"], turn["value"]) for turn in row["conversations"]]


@_each
def alternating(row: dict[str, Any]) -> list[Turn]:
    return [(("user", "assistant")[place % 2], text) for place, text in enumerate(row["conversations"])]


def _instructed(instruction: str, given: str, answer: str) -> Form:
    """Rows with an instruction, an optional input and an answer, under these keys."""

    def turns(row: dict[str, Any]) -> list[Turn]:
        parts = (row[instruction].strip(), (row[given] or "").strip())
        return [("user", "\n\n".join(filter(None, parts))), ("assistant", row[answer].strip())]

    return _each(turns)


ALPACA = _instructed("instruction", "input", "output")
DOLLY = _instructed("instruction", "context", "response")


@_each
def reasoned(row: dict[str, Any]) -> list[Turn]:
    question, answer, rationale = (
        row[key].replace("\\n", "\n").strip() for key in ("question", "answer", "rationale")
    )
    worked = f"{rationale}\nSo the answer is {answer.removesuffix('.')}." if rationale and answer else None
    return [("user", question), ("assistant", worked)]


@_each
def judged(row: dict[str, Any]) -> list[Turn]:
    answer, choices = row["answer"], row["choices"]
    asked = multiple_choice(row["question"].strip(), choices)
    return [("user", asked), ("assistant", f"{answer}. {choices[answer]}")]


@_each
def read_up(row: dict[str, Any]) -> list[Turn]:
    paper = "\n\n".join(part.strip() for part in row["context_chunks"])
    return [("user", f"{paper}\n\n{row['question'].strip()}"), ("assistant", row["answer"].strip())]


def best_path(rows: Iterator[dict[str, Any]]) -> Iterator[list[Turn]]:
    """Open Assistant's trees, one message per row: for each tree the path of the best-ranked replies (the first reply if none is ranked)."""
    replies: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows:
        if absent := [key for key in ("message_id", "role", "text", "rank") if key not in row]:
            # Raised here because the row's place is still known.
            raise ValueError(f"it has no {absent[0]!r}, but {', '.join(row)}")
        replies.setdefault(row["parent_id"], []).append(row)
    for root in replies.get(None, []):
        path = [root]
        while following := replies.get(path[-1]["message_id"]):
            path.append(min(following, key=lambda reply: inf if reply["rank"] is None else reply["rank"]))
        yield [(message["role"], message["text"]) for message in path]
