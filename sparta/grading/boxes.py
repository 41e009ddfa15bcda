r"""Boxes: `\boxed{...}`, where a written solution puts its answer."""

import re
from dataclasses import dataclass

# An escaped brace is a character of the text, whose backslash is no backslash of a command.
_PARTS = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Box:
    """content: between the braces. start, end: the place in the text, braces and command included."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    """The boxes of `text` in order, by matched braces; a box within a box is not told apart, one that is never closed is none."""
    return _read(text)[0]


def is_box_open(text: str, start: int) -> bool:
    """Whether a box that begins at `start` or later is never closed, as in a text that was cut."""
    return any(place >= start for place in _read(text)[1])


def _read(text: str) -> tuple[list[Box], list[int]]:
    """The boxes, and where those begin that are never closed."""
    open_at: list[tuple[int, int] | None] = []
    found: list[Box] = []
    for part in _PARTS.finditer(text):
        if part[0].endswith("{") and part[0] != r"\{":
            open_at.append((part.start(), part.end()) if len(part[0]) > 1 else None)
        elif part[0] == "}" and open_at:
            place = open_at.pop()
            if place:
                while found and found[-1].start > place[0]:
                    found.pop()
                found.append(Box(place[0], part.end(), text[place[1] : part.start()]))
    return found, [place[0] for place in open_at if place]
