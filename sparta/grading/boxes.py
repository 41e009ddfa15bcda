r"""Finds boxes: `\boxed{...}`, where a solution puts its final answer."""

import re
from dataclasses import dataclass

# An escaped brace is a literal character; its backslash does not begin a command.
_PARTS = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Box:
    """content: between the braces. start, end: the position in the text, including command and braces."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    """The outermost boxes of `text` in order, by matched braces; unclosed boxes are left out."""
    return _read(text)[0]


def is_box_open(text: str, start: int) -> bool:
    """Whether a box that begins at `start` or later is never closed, as in a truncated text."""
    return any(place >= start for place in _read(text)[1])


def _read(text: str) -> tuple[list[Box], list[int]]:
    """The closed boxes, and the start positions of the unclosed ones."""
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
