"""The one exception a person is meant to read, and what makes a foreign text fit to be read.

Everything a user can cause (a bad recipe, an edited state, a full disk) is raised as `SpartaError`: one sentence that says what is
wrong, where, and what to do. The commands print it and exit with status 1. Anything else is a bug and keeps its traceback. What is wrong and
stops nothing is a `note`.
"""

import re
import sys
import unicodedata
from functools import cache

_LAYOUT = "\n\t"
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Unicode's categories of control characters, halves of characters, and separators of lines and paragraphs that are no line feed."""
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Bidirectional classes of the characters that turn what follows them around, or back."""
_MARKS = "\u061c\u200e\u200f"
"""The rest of what Unicode calls Bidi_Control: marks that stand for a letter of one direction."""


class SpartaError(Exception):
    """What is wrong, where, and what to do about it, in one sentence. Its text is `printable`, whoever wrote the parts of it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(Exception):
    """The arguments of a command contradict each other. The message says how, and which to leave out; the command exits as for an unknown option."""


def printable(text: str) -> str:
    """`text` of a model, a log or an endpoint as a terminal may have it: what would steer one, or turn the order of letters around, is spelled out.

    Line feeds and tabs stay, and a carriage return before a line feed goes. An escape character reads \\x1b, a right-to-left override \\u202e.
    Nothing else is changed, so that what has been through it once stays as it is.
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(map(_spelled, re.sub("\r+\n", "\n", text)))


@cache
def note(text: str) -> None:
    """Tell whoever reads standard error, once a process, of something that is not as it should be and stops nothing."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)


def _spelled(character: str) -> str:
    turns = character in _MARKS or unicodedata.bidirectional(character) in _TURNS
    if character in _LAYOUT or not (turns or unicodedata.category(character) in _INVISIBLE):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
