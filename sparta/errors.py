"""The exception for users, notes, and the escaping of untrusted text for a terminal.

Everything a user can cause (a bad recipe, an edited state, a full disk) is raised as `SpartaError`: one sentence that says what is
wrong, where, and what to do. The commands print it and exit with status 1. Any other exception is a bug and keeps its traceback. A
problem that does not stop the command is printed by `note`.
"""

import re
import sys
import unicodedata
from functools import cache

_LAYOUT = "\n\t"
_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Unicode categories: control characters, surrogates, line and paragraph separators."""
_BIDI_CLASSES = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Bidirectional classes of the characters that change the direction of the text after them."""
_ENDLESS = re.compile(r"(\S{200})\S{300,}(\S{50})")
"""A word that is longer than any path or name: what a broken file had in the place of a key."""
_BIDI_MARKS = "\u061c\u200e\u200f"
"""The other characters with the Unicode property Bidi_Control: direction marks."""


class SpartaError(Exception):
    """One sentence: what is wrong, where, and what to do.

    Its text is always `printable`, and endless words in it are shortened, because parts of it may come from elsewhere.
    """

    def __str__(self) -> str:
        return _ENDLESS.sub(r"\1[...]\2", printable(super().__str__()))


class NotHere(SpartaError):
    """A model or data set that a command fetches or prepares is not on this machine yet."""


class UsageError(Exception):
    """The arguments of a command contradict each other. The message says how, and which to leave out; the command exits as for an unknown option."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, for use in our own message; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str) -> str:
    """`text` (of a model, a log, an endpoint) made safe for a terminal: control and bidirectional characters are escaped.

    Line feeds and tabs stay; a carriage return before a line feed is removed. An escape character becomes \\x1b, a right-to-left override
    \\u202e. Nothing else is changed, so the function is idempotent.
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(map(_escaped, re.sub("\r+\n", "\n", text)))


@cache
def note(text: str) -> None:
    """Print a warning to standard error, at most once per process and text."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)


def _escaped(character: str) -> str:
    bidi = character in _BIDI_MARKS or unicodedata.bidirectional(character) in _BIDI_CLASSES
    if character in _LAYOUT or not (bidi or unicodedata.category(character) in _INVISIBLE):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
