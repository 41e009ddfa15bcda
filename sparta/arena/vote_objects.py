"""The JSON objects in a judge's text: where they are and what their own keys say. What is inside a value is never looked at.

Read is what models write for JSON: either quotes, typographic ones, or none around a key; a comma too many; comments; the words of Python.
One pass with a stack, so that neither depth nor length can hurt.
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

_SPENDABLE = 16
"""Characters that may be read for each one of the text; more is read only where braces were set to make it so."""


class Tangled(Exception):
    """The braces of a text are such that its objects cannot be told apart."""


@dataclass(frozen=True)
class Value:
    """What a key has. text: a scalar as it is written, or a string's content; None for a list or an object. finished: nothing can follow."""

    text: str | None
    finished: bool


@dataclass(frozen=True)
class Object:
    """An object that is inside no other. start, end: the place in the text. closed: whether it ends before the text does.

    pairs: its own keys, in lower case, and their values, in order.
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
    return scan.right and not scan.opened and scan.at == len(text)


def objects_in(text: str) -> list[Object]:
    """The objects of `text`, in order; the last may be one that the text ends within. Raises Tangled."""
    found: list[Object] = []
    at, spent, hopeless = text.find("{"), 0, set[int]()
    while at >= 0:
        if at not in hopeless:
            scan = _Scan(text, at)
            scan.run()
            spent += scan.at - at
            if spent > _SPENDABLE * len(text):
                raise Tangled
            if scan.right:
                found.append(Object(at, scan.at, not scan.opened, tuple(scan.pairs)))
                at = text.find("{", scan.at)
                continue
            # Whatever was open where it went wrong goes wrong there, too.
            hopeless.update(scan.opened)
        at = text.find("{", at + 1)
    return found


class _Scan:
    """One attempt to read an object from `start` on. right: whether it is one as far as the text goes. at: where the attempt ended.

    opened: where those braces are that were open there.
    """

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = start
        self.opened: list[int] = []
        self.pairs: list[tuple[str, Value]] = []
        self.right = True

    def run(self) -> None:
        self._open()
        while self.opened and self.right and self.at < len(self.text):
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
        """End what is open, and what ends with it; then a comma, or another end, must follow."""
        self.opened.pop()
        self.at += 1
        if self.opened:
            self._after_value()

    def _after_value(self) -> bool:
        """Pass the comma behind a value, if there is one. Whether the value has ended: the text may end first."""
        self._blank()
        if self._is(","):
            self.at += 1
            return True
        ended = self.at < len(self.text)
        self.right = not ended or self._is("}" if self.text[self.opened[-1]] == "{" else "]")
        return ended

    def _key(self) -> str | None:
        """The key that stands here, with its colon passed; None where there is none, or the text ends before its value."""
        string = _STRING.match(self.text, self.at)
        name = string or _NAME.match(self.text, self.at)
        if name is None:
            self.right = self.at >= len(self.text)
            return None
        self.at = name.end()
        self._blank()
        if not _COLON.match(self.text, self.at):
            self.right = self.at >= len(self.text)
            return None
        self.at += 1
        self._blank()
        return _content(string) if string else name[0]

    def _value(self, key: str | None) -> None:
        """Pass the value that stands here. key: what it is recorded under; None for values of what is inside."""
        if self._is("{") or self._is("["):
            self._record(key, Value(None, finished=True))
            self._open()
            return
        string = _STRING.match(self.text, self.at)
        scalar = string or _SCALAR.match(self.text, self.at)
        if scalar is None:
            self.right = self.at >= len(self.text)
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
