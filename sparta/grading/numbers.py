r"""Extracts the number that an answer gives, as in GSM8K.

Searched in this order, each time for the last of its kind; places without a number are skipped:

1. after the last `####`, on the first non-empty line: the number after the last `=`, else the first number. A line that begins with `Step`
   or numbers its steps (`1. Find ...`) is a heading and skipped; so is one that begins with another word if 2 or 3 follow it;
2. after the last `answer is`, `answer:` or `answer =` (or `final number` etc. instead of `answer`), up to the end of its line or sentence,
   with the same rule; if the rest of the line is empty, on the next line;
3. in the last `\boxed{...}`, with the same rule;
4. the last number of the text.

For the formats of numbers see numerals.py; a number in words (`twelve`) counts in a stated answer. A denied number (`not 25 but 20`) does
not count. Thinking, and another question after the answer, are ignored. A range, numbers joined by `or`, a sum without its result, and an
answer that is retracted are ambiguous: they give no number and no grade.
"""

import re
from dataclasses import replace
from fractions import Fraction

from sparta.errors import SpartaError
from sparta.grading.boxes import boxes, is_box_open
from sparta.grading.number_words import spelled_in
from sparta.grading.numerals import Numeral, negative, numerals_in, plain
from sparta.grading.passages import MARKUP, is_taken_back, passage_of, statements_in

_MARK = re.compile(r"####[#\s]*(?P<line>[^\n]*?)(?=####|\n|\Z)")
_WORD = re.compile(r"[*_\s]*(?P<word>[^\W\d_]+)")
_STEP = re.compile(r"[*_\s]*[0-9]{1,2}[.)]\s+[*_]*[^\W\d_]")

# Within a passage: the context of a number.
_DENIED = re.compile(
    r"(?:\b(?:not|never|rather\s+than|instead\s+of|no\s+longer)|n['’]t)\s+(?:(?:equal\s+to|just|exactly|simply|be)\s+)?[$€£*_(]{0,3}\Z",
    re.IGNORECASE,
)
_ALSO = re.compile(r"[\s*_$€£]*(?:,|\bor|\band|\bnor)[\s*_$€£]*", re.IGNORECASE)
_MINUS_APART = re.compile(r"[\s*_$(]*[-−]\s+[$€£]?\Z")
_ROUNDED = re.compile(
    r"\bround(?:s|ed|ing)?\s+(?:(?:up|down|off|it)\s+)*(?:to|gives)\s+[$€£*_]{0,3}\Z", re.IGNORECASE
)
_PLACES = re.compile(r"\s*(?:decimals?|places?|significant|digits?)\b", re.IGNORECASE)
_CORRECTED = re.compile(
    r"[,;(–—?!-]\s*(?:wait|no|sorry|actually|rather|I\s+mean|correction|make\s+(?:that|it))\b", re.IGNORECASE
)
_JOINED = re.compile(
    r"[\s*_$€£)]*(?:[-–—~+×x*÷−]|\\div|to|or|and|plus|minus|times|over)[\s*_$€£(]*(?:(?:maybe|perhaps|even)\s+)?"
    r"|[ ]?(?:hours?|hrs?|h|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|yards?|miles?|pounds?|lbs?|ounces?|oz|k?g|c?m|km)"
    r"[ ]*(?:,|and|,[ ]*and)?[ ]*",
    re.IGNORECASE,
)
_NEARLY = re.compile(
    r"[^0-9]*(?:≈|\\approx|\bor\s+(?:about|approximately|roughly)|\bwhich\s+(?:is|equals|makes|gives|comes\s+to)|\bthat\s+is|\bi\.e\.)[^0-9]*",
    re.IGNORECASE,
)
_BOUNDED = re.compile(r"\b(?:more|less|fewer|greater|higher|lower)\s+than\s+[$€£*_]{0,3}\Z", re.IGNORECASE)
_SHARE = re.compile(r"\s*%?\s*\bof\s+(?:the\s+|all\s+)?[$€£*_]{0,3}", re.IGNORECASE)
_CENTS = re.compile(r"[ ]dollars?,?[ ](?:and[ ])?(?P<cents>[0-9]{1,2})[ ]cents?\b", re.IGNORECASE)

# Within the whole text: sentences that are not part of a solution, numbers that are years.
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?=\S))+")
_COURTESY = re.compile(
    r"\b(?:let\s+me\s+know|feel\s+free|hope\s+(?:this|that|it)|(?:any|more|other|further)\s+questions?|anything\s+else)\b",
    re.IGNORECASE,
)
_DATED = re.compile(r"\b(?:in|by|since|until|of|year)\s+\Z", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_SENTENCE_ENDS = re.compile(r"[.!?。][*_\"'”)]*\s|\n")
_CONCLUDES = re.compile(
    r"(?:(?<=[.!?\n])|\A)[ \t]*+(?:so|therefore|thus|hence|in\s+total|altogether|finally|in\s+conclusion|overall)\b(?:[^.!?\n]|[.!?](?=\S))*",
    re.IGNORECASE,
)
# Numbers that are not parsed: digits of other scripts, and words for fractions and multiples.
_UNREAD = re.compile(
    r"(?![0-9])\d|\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|dozens?|couple|twice|thrice)\b",
    re.IGNORECASE,
)

_REACH = 40
"""Characters before a number that are searched for its context."""
_AMBIGUOUS = Numeral(0, 0, None)
"""The result for a text that gives a number, but an ambiguous one."""


def number_of(text: str) -> Fraction | None:
    """The exact number that `text` gives; None if there is none or it is ambiguous."""
    given = _given(text)
    return None if given is None else given.value


def same_number(gold: str, text: str) -> bool | None:
    """Whether `text` gives exactly the number that `gold` gives; None if it is ambiguous.

    Raises SpartaError if `gold` gives no number.
    """
    right = number_of(gold)
    if right is None:
        raise SpartaError(
            f"the right answer {gold[:60]!r} holds no number: correct that item, or grade by another rule"
        )
    given = _given(text)
    if given is None:
        return False
    if given.value is None or (given.value != right and right in given.others):
        return None
    return given.value == right


def _given(text: str) -> Numeral | None:
    """The number that `text` gives; None if it gives none, and a numeral without a value if it is ambiguous."""
    passage = passage_of(plain(text))
    if passage is None:
        return _AMBIGUOUS
    stated = _stated(passage.answer)
    if stated is not None:
        return stated
    beyond, loose = _stated(passage.beyond), _last(passage.answer)
    if beyond is None or loose is None:
        return beyond or loose or _last(passage.beyond)
    return beyond if beyond.value == loose.value else _AMBIGUOUS


def _stated(text: str) -> Numeral | None:
    """The number after `####`, in a stated answer, or in a box; None if there is none."""
    statements, boxed = statements_in(text), boxes(text)[-1:]
    answered = max([0, *(statement.place for statement in statements), *(box.start for box in boxed)])
    stated = (
        _result(text, statement.start, statement.end, statement.denied, statement.below)
        for statement in reversed(statements)
    )
    found = [
        _marked(text, answered),
        next((numeral for numeral in stated if numeral), None),
        *(_result(text, box.end - 1 - len(box.content), box.end - 1) for box in boxed),
    ]
    given = [numeral for numeral in found if numeral is not None]
    if not given:
        return None
    first, last = given[0], max(given, key=lambda numeral: numeral.end)
    if is_taken_back(text, last.end) or is_box_open(text, last.end):
        return _AMBIGUOUS
    if is_taken_back(text[: last.start], first.end):
        return last
    later = [numeral.value for numeral in given if numeral.start > first.start]
    return first.or_else(*(value for value in later if value is not None))


def _marked(text: str, answered: int) -> Numeral | None:
    """The number after the last `####` that is not a heading. answered: the position of the last stated or boxed answer."""
    marks = list(_MARK.finditer(text))
    steps = sum(_STEP.match(mark["line"]) is not None for mark in marks) > 1
    for mark in reversed(marks):
        word = _WORD.match(mark["line"])
        heading = word and (word["word"].lower() == "step" or answered >= mark.end())
        numeral = None
        if not heading and not (steps and _STEP.match(mark["line"])):
            numeral = _result(text, *mark.span("line"))
        if numeral is not None:
            return numeral
    return None


def _result(text: str, start: int, end: int, denied: bool = False, below: bool = False) -> Numeral | None:
    """The number that a passage gives: after the last `=` if a number follows it, else the first.

    denied: the passage follows `is not`. below: it is a separate line, where a dash before a number may be a list marker.
    """
    equals = text.rfind("=", start, end) + 1
    tail = _first(text, equals, end, denied=False, below=False) if equals else None
    return tail or _first(text, start, end, denied, below)


def _first(text: str, start: int, end: int, denied: bool, below: bool) -> Numeral | None:
    """The first number between `start` and `end` that is not denied; without a value if other numbers after it make it ambiguous."""
    passage = text[start:end]
    every = numerals_in(passage)
    counted = _not_denied(passage, every, denied)
    spelled = spelled_in(passage)
    if spelled and (not every or MARKUP.fullmatch(passage, 0, spelled.start)):
        return Numeral(start + spelled.start, start + spelled.end, spelled.value)
    if not counted:
        return _AMBIGUOUS if not every and _UNREAD.search(passage) else None
    for numeral in counted:
        if _ROUNDED.search(_before(passage, numeral)) and not _PLACES.match(passage, numeral.end):
            return _shifted(numeral, start)
    first = counted[0]
    if not below and _MINUS_APART.fullmatch(passage, 0, first.start):
        first = negative(first)
    if cents := _CENTS.match(passage, first.end):
        value = None if first.value is None else first.value + Fraction(int(cents["cents"]), 100)
        return _shifted(replace(first, end=cents.end(), value=value), start)
    others = [numeral for numeral in every if numeral.start >= first.end]
    if _is_open(passage, first, others):
        first = replace(first, value=None)
    elif others and others[0].value is not None and _NEARLY.fullmatch(passage, first.end, others[0].start):
        first = first.or_else(others[0].value)
    return _shifted(first, start)


def _not_denied(text: str, every: list[Numeral], denied: bool = False) -> list[Numeral]:
    """The numerals that are not denied; in `not 20 or 30 but 25`, two are. denied: the first one is."""
    counted = []
    end = 0
    for numeral in every:
        denied = (
            _DENIED.search(_before(text, numeral)) is not None
            or (denied and _ALSO.fullmatch(text, end, numeral.start) is not None)
            or (denied and not end)
        )
        end = numeral.end
        if not denied:
            counted.append(numeral)
    return counted


def _is_open(passage: str, first: Numeral, others: list[Numeral]) -> bool:
    """Whether the first number of a passage is a bound, part of a sum, a range or a share, or is corrected afterwards."""
    if _BOUNDED.search(_before(passage, first)):
        return True
    if not others:
        return False
    part = first.value is None or first.value.denominator > 1 or "%" in passage[first.end : others[0].start]
    return bool(
        _JOINED.fullmatch(passage, first.end, others[0].start)
        or _CORRECTED.search(passage, first.end, others[-1].start)
        or (part and _SHARE.fullmatch(passage, first.end, others[0].start))
    )


def _last(text: str) -> Numeral | None:
    """The last number of the text, ignoring courtesy phrases and years. The other numbers in its sentence (except those before the last
    `=`), and in a concluding sentence, are kept as alternatives.
    """
    text = _SENTENCE.sub(lambda found: " " * len(found[0]) if _COURTESY.search(found[0]) else found[0], text)
    every = _not_denied(text, numerals_in(text))
    if not every:
        return _AMBIGUOUS if _UNREAD.search(text) or spelled_in(text) else None
    begins = max((found.end() for found in _SENTENCE_ENDS.finditer(text, 0, every[-1].start)), default=0)
    sentence = [numeral for numeral in every if numeral.start >= begins]
    undated = [numeral for numeral in sentence if not _is_year(text, numeral)]
    last = (undated or sentence)[-1]
    if is_taken_back(text, last.end):
        return _AMBIGUOUS
    result = text.rfind("=", begins, last.start)
    meant = [numeral for numeral in sentence if numeral.start > result]
    if concluded := next(reversed(list(_CONCLUDES.finditer(text))), None):
        meant += [numeral for numeral in every if concluded.start() <= numeral.start < concluded.end()]
    return last.or_else(*(numeral.value for numeral in meant if numeral.value not in (None, last.value)))


def _is_year(text: str, numeral: Numeral) -> bool:
    return _YEAR.fullmatch(text, numeral.start, numeral.end) is not None and bool(
        _DATED.search(_before(text, numeral))
    )


def _before(text: str, numeral: Numeral) -> str:
    return text[max(0, numeral.start - _REACH) : numeral.start]


def _shifted(numeral: Numeral, start: int) -> Numeral:
    return replace(numeral, start=numeral.start + start, end=numeral.end + start)
