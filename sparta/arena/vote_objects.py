"""Finds the JSON objects in a judge's text, with their positions and top-level keys. Nested values are not read.

Accepts JSON as models write it: single, double or typographic quotes, or keys without quotes; a trailing comma; comments; Python
literals. One pass with an explicit stack, so neither deep nor long texts are a problem.
"""

import re
from dataclasses import dataclass

_BLANK = re.compile(r"(?:\s+|//[^\n]*+|#[^\n]*+)*+")
_STRING = re.compile(
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*+)(?:"|(?P<open>\Z))|'(?P<single>(?:[^'\\\n]|\\.)*+)(?:'|(?P<cut>\Z))|[“”](?P<curly>[^“”"\n]*+)[“”"])""",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_][\w-]*+(?:[ ][\w-]++){0,3}+(?=\s*+[:：])")
_NAME_PARTS = re.compile(r"[\s_*-]+")
_COLON = re.compile(r"[:：]")
_SCALAR = re.compile(r"""(?:(?!//|\s#)[^,{}\[\]"'“”\n])++""")

_MAX_READS = 16
"""How often each character may be read, on average. Only texts whose braces were arranged to cause it need more."""


class TooManyReads(Exception):
    """The braces of a text are arranged such that finding its objects would take too long."""


@dataclass(frozen=True)
class Value:
    """The value of a key.

    text: a scalar as written, or the content of a string; None for a list or an object. finished: no continuation could change it.
    """

    text: str | None
    finished: bool


@dataclass(frozen=True)
class Object:
    """A top-level object. start, end: its position in the text. closed: whether its closing brace is there.

    pairs: its own keys, in lower case, with their values, in order.
    """

    start: int
    end: int
    closed: bool
    pairs: tuple[tuple[str, Value], ...]

    def values(self, key: str) -> list[Value]:
        return [value for name, value in self.pairs if name == key]


def is_object(text: str) -> bool:
    """Whether `text` is one object and nothing else."""
    if not (text.startswith("{") and text.endswith("}")):
        return False
    scan = _Scan(text, 0)
    scan.run()
    return scan.valid and not scan.opened and scan.at == len(text)


def objects_in(text: str) -> list[Object]:
    """The objects of `text`, in order; the last may be unclosed at the end of the text. Raises TooManyReads."""
    found: list[Object] = []
    at, read, invalid = text.find("{"), 0, set[int]()
    while at >= 0:
        if at not in invalid:
            scan = _Scan(text, at)
            scan.run()
            read += scan.at - at
            if read > _MAX_READS * len(text):
                raise TooManyReads
            if scan.valid:
                found.append(Object(at, scan.at, not scan.opened, tuple(scan.pairs)))
                at = text.find("{", scan.at)
                continue
            # A scan from any brace that is still open would fail at the same place.
            invalid.update(scan.opened)
        at = text.find("{", at + 1)
    return found


class _Scan:
    """One attempt to read an object from `start` on.

    valid: whether the text is an object up to its closing brace or the end of the text. at: where the attempt ended. opened: positions of
    the braces that were open there.
    """

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = start
        self.opened: list[int] = []
        self.pairs: list[tuple[str, Value]] = []
        self.valid = True

    def run(self) -> None:
        self._open()
        while self.opened and self.valid and self.at < len(self.text):
            in_object = self.text[self.opened[-1]] == "{"
            self._blank()
            if self._is("}" if in_object else "]"):
                self._close()
            elif not in_object:
                self._value(None)
            elif (key := self._key()) is not None:
                self._value(key if len(self.opened) == 1 else None)

    def _open(self) -> None:
        self.opened.append(self.at)
        self.at += 1

    def _close(self) -> None:
        """Close the innermost brace or bracket; a comma or another closing one must follow."""
        self.opened.pop()
        self.at += 1
        if self.opened:
            self._after_value()

    def _after_value(self) -> bool:
        """Skip the comma after a value, if any. Returns whether the value is complete; at the end of the text it may not be."""
        self._blank()
        if self._is(","):
            self.at += 1
            return True
        ended = self.at < len(self.text)
        self.valid = not ended or self._is("}" if self.text[self.opened[-1]] == "{" else "]")
        return ended

    def _key(self) -> str | None:
        """Read a key and its colon; None if there is no key, or the text ends before its colon."""
        string = _STRING.match(self.text, self.at)
        name = string or _NAME.match(self.text, self.at)
        if name is None:
            self.valid = self.at >= len(self.text)
            return None
        self.at = name.end()
        self._blank()
        if not _COLON.match(self.text, self.at):
            self.valid = self.at >= len(self.text)
            return None
        self.at += 1
        self._blank()
        return _content(string) if string else name[0]

    def _value(self, key: str | None) -> None:
        """Read a value. key: its top-level key; None for nested values, which are not recorded."""
        if self._is("{") or self._is("["):
            self._record(key, Value(None, finished=True))
            self._open()
            return
        string = _STRING.match(self.text, self.at)
        scalar = string or _SCALAR.match(self.text, self.at)
        if scalar is None:
            self.valid = self.at >= len(self.text)
            return
        self.at = scalar.end()
        text = _content(string) if string else scalar[0].strip()
        self._record(key, Value(text, finished=self._after_value()))

    def _record(self, key: str | None, value: Value) -> None:
        if key is not None:
            self.pairs.append((_NAME_PARTS.sub(" ", key).strip().lower(), value))

    def _blank(self) -> None:
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at

    def _is(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)


def _content(string: re.Match[str]) -> str:
    return next(part for part in (string["double"], string["single"], string["curly"]) if part is not None)
