r"""The number that an answer gives, as in GSM8K.

Looked for in this order, the last of its kind each time; what holds no number does not count:

1. after the last `####`, on the first line there that is not empty: the number after the last `=` there, else the first. A line that begins
   with `Step` is a heading and none, and so is one that begins with another word, where 2 or 3 follow it;
2. after the last `answer is`, `answer:` or `answer =`, or `final number` instead of `answer`, up to the end of its line or sentence, likewise;
3. in the last `\boxed{...}`, likewise;
4. the last number of the text.

A number is written in ASCII digits: `18`, `-3`, `1,234`, `2.50`, `.5`, `3/4`, `1 1/2`, `\frac{3}{4}`. A currency or a unit beside it is
passed over, and so is a percent sign (`50%` is 50, as the gold answers write it). A minus is a sign only where it touches the number and
does not subtract (`10-5` ends in 5).
"""

import re
from fractions import Fraction

from sparta.errors import SpartaError
from sparta.grading.boxes import boxes

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    rf"""(?<![\w.])(?:(?P<sign>[-\u2212])(?=[$\u20ac\u00a30-9.]))?[$\u20ac\u00a3]?(?:(?<=[$\u20ac\u00a3])(?P<late>[-\u2212]))?
    (?:(?P<mixed>[0-9]+)[ ]+(?P<up>[0-9]+)[ ]*/[ ]*(?P<under>[0-9]+)
    |(?P<value>{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?:[ ]*/[ ]*(?P<over>{_WHOLE}))?)""",
    re.VERBOSE,
)
_PARTS = (("mixed", "0"), ("up", "0"), ("under", "1"), ("value", "0"), ("over", "1"))
_MINUEND = re.compile(r"[0-9)\]}%][ \t]{0,9}\Z")
_LONGEST = 100
"""Characters of a number; a longer row of digits is a loop, not a result."""
_ANSWER = r"\b(?:answer|final\s+number)\b"
_STATED = re.compile(
    rf"{_ANSWER}[*_\s]*(?:\bis\b|[:=])[*_]*(?P<rest>(?:(?!{_ANSWER})(?:[^.\n]|\.(?=[0-9])))*)", re.IGNORECASE
)
_MARK = re.compile(r"####[#\s]*(?P<line>[^\n]*?)(?=####|\n|\Z)")
_WORD = re.compile(r"[*_\s]*(?P<word>[^\W\d_]+)")

# LaTeX's ways to write what the pattern above reads, in this order.
_LATEX = (
    (re.compile(r"\\[,!;: ]|\{,\}"), lambda match: "," if match[0] == "{,}" else ""),
    (re.compile(r"\\([$%#&])"), lambda match: match[1]),
    (
        re.compile(r"([0-9]?)\s*\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])([0-9]))"),
        lambda match: f"{match[1]} {match[2] or match[4]}/{match[3] or match[5]}",
    ),
)


def number_of(text: str) -> Fraction | None:
    """The number that `text` gives, exactly; None where there is none."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    stated = list(_STATED.finditer(text))[-1:]
    boxed = boxes(text)[-1:]
    answered = max([0, *(found.start() for found in stated), *(box.start for box in boxed)])
    number = _marked(text, answered)
    for passage in (*(found["rest"] for found in stated), *(box.content for box in boxed)):
        if number is None:
            number = _result(passage)
    return _last(text) if number is None else number


def same_number(gold: str, text: str) -> bool:
    """Whether `text` gives exactly the number that `gold` gives. Raises SpartaError where `gold` gives none."""
    right = number_of(gold)
    if right is None:
        raise SpartaError(
            f"the right answer {gold[:60]!r} holds no number: correct that item, or grade by another rule"
        )
    return number_of(text) == right


def _numbers(text: str) -> list[Fraction]:
    found = []
    for match in _NUMBER.finditer(text):
        if len(match[0]) > _LONGEST:
            continue
        parts = [Fraction((match[group] or absent).replace(",", "")) for group, absent in _PARTS]
        whole, above, under, value, over = parts
        if under and over:
            subtracts = _MINUEND.search(text, max(0, match.start() - _LONGEST), match.start())
            negative = match["late"] or (match["sign"] and not subtracts)
            found.append((-1 if negative else 1) * (whole + above / under + value / over))
    return found


def _first(text: str) -> Fraction | None:
    return next(iter(_numbers(text)), None)


def _last(text: str) -> Fraction | None:
    return next(iter(_numbers(text)[-1:]), None)


def _marked(text: str, answered: int) -> Fraction | None:
    """What the last `####` gives that is no heading. answered: where an answer is stated or boxed last."""
    for mark in reversed(list(_MARK.finditer(text))):
        word = _WORD.match(mark["line"])
        heading = word and (word["word"].lower() == "step" or answered >= mark.end())
        number = None if heading else _result(mark["line"])
        if number is not None:
            return number
    return None


def _result(text: str) -> Fraction | None:
    """After the last `=` where a number follows it, else the first."""
    last = _first(text.rpartition("=")[2])
    return _first(text) if last is None else last
