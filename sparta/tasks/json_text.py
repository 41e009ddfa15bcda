"""Strict parsing of JSON from users and publishers: without loss, or refused with the line number.

Numbers keep their digits as typed. NaN and Infinity, numbers that are too large, duplicate keys in an object, and excessive nesting are
refused. The suite's own files are read by `sparta.store.files`.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn, Self

DEEPEST = 100
"""Maximum levels of nesting; real data has fewer than ten."""
_LONGEST = 300
"""Maximum digits of a whole number."""
_DEEP = f"nested more than {DEEPEST} levels deep"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|-?Infinity|NaN|-?[0-9][-+.0-9eE]*', re.DOTALL)


class NotJson(ValueError):
    """Invalid text. line: its line, from 1. The message is the reason, without the place."""

    def __init__(self, why: str, line: int) -> None:
        super().__init__(why)
        self.line = line


class TypedNumber(float):
    """A number with a fraction or an exponent. Its text is what was typed: 0.00001 and not 1e-05, 1e22, 1.50."""

    digits: str

    def __new__(cls, digits: str) -> Self:
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    def __str__(self) -> str:
        return self.digits

    __repr__ = __str__


class _Refused(ValueError):
    """The text has something that the json module accepts and this parser does not; `_raise_first_fault` finds its position."""


def parse_json(text: str) -> Any:
    """The value of `text`; numbers with a fraction or an exponent are TypedNumbers. Raises NotJson."""
    try:
        value = json.loads(
            text,
            parse_float=_number,
            parse_int=_whole_number,
            parse_constant=_no_number,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON ({error.msg} at column {error.colno})", error.lineno) from None
    except (_Refused, RecursionError):
        _raise_first_fault(text)
    if _is_deep(value):
        _raise_first_fault(text)
    return value


def _number(digits: str) -> TypedNumber:
    number = TypedNumber(digits)
    return _refuse() if math.isinf(number) else number


def _whole_number(digits: str) -> int:
    return _refuse() if len(digits) > _LONGEST else int(digits)


def _no_number(name: str) -> NoReturn:
    _refuse()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return _refuse() if len(found) < len(pairs) else found


def _refuse() -> NoReturn:
    raise _Refused


def _is_deep(value: Any) -> bool:
    """Whether `value` is nested deeper than DEEPEST; without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _raise_first_fault(text: str) -> NoReturn:
    """Raise NotJson for the first refused part of `text`, which the json module accepts or which is nested too deeply for it."""
    for place, why in _faults(text):
        raise NotJson(why, text.count("\n", 0, place) + 1)
    raise NotJson(_DEEP, 1)


def _faults(text: str) -> Iterator[tuple[int, str]]:
    """Position and reason of everything that is refused, in the order of the text."""
    # For each open object the keys so far, for each open list None.
    open_: list[set[str] | None] = []
    key_next = False
    for token in _TOKEN.finditer(text):
        found = token[0]
        if found in "{[":
            open_.append(set() if found == "{" else None)
            if len(open_) > DEEPEST:
                yield token.start(), _DEEP
            key_next = found == "{"
        elif found in "}]":
            open_.pop()
            key_next = False
        elif found == ",":
            key_next = bool(open_) and open_[-1] is not None
        elif found.startswith('"'):
            keys = open_[-1] if open_ else None
            if key_next and keys is not None:
                key = json.loads(found)
                if key in keys:
                    yield token.start(), f"the key {key!r} is there twice in one object"
                keys.add(key)
            key_next = False
        elif found.lstrip("-") in ("NaN", "Infinity"):
            yield token.start(), f"{found} is no number: write one, or null, or leave the key out"
        elif len(found) > _LONGEST or math.isinf(float(found)):
            shown = found if len(found) <= 20 else f"{found[:20]}..."
            yield token.start(), f"the number {shown} is too large"
