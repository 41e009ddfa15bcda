"""Numbers in English words: `twelve`, `a hundred and five`, `two and a half`."""

import re
from dataclasses import dataclass
from fractions import Fraction

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
SCALES = {
    "hundred": 100,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}
"""Words that multiply the number before them."""

_WORD = "|".join(sorted([*_SMALL, *SCALES], key=len, reverse=True))
_NUMBER = re.compile(
    rf"\b(?:(?P<minus>minus|negative)\s+)?(?P<words>(?:an?\s+(?=(?:{'|'.join(SCALES)})\b))?(?:{_WORD})\b(?:(?:[\s-]+(?:and\s+)?)(?:{_WORD})\b)*)"
    r"(?P<half>\s+and\s+a\s+half\b)?",
    re.IGNORECASE,
)
_NO_NUMBER_BEHIND = re.compile(
    r"\s+(?:of\b|another\b|that\b|which\b|who\b|can\b|could\b|must\b|should\b|has\b|by\b|or\b|to\b)|\s*[-/]\s*\w",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Spelled:
    """start, end: the position in the text. value: None if the words do not form a number."""

    start: int
    end: int
    value: Fraction | None


def spelled_in(text: str) -> Spelled | None:
    """The first number in words in `text`; None if there is none. `one of them` and `two-digit` do not count."""
    for found in _NUMBER.finditer(text):
        if not _NO_NUMBER_BEHIND.match(text, found.end()):
            value = _value(re.findall(r"[a-z]+", found["words"].lower()))
            if value is not None and found["half"]:
                value += Fraction(1, 2)
            return Spelled(
                found.start(), found.end(), -value if value is not None and found["minus"] else value
            )
    return None


def _value(words: list[str]) -> Fraction | None:
    """The number that the words form; None if they cannot be parts of one number."""
    total, group, last = 0, 0, 0
    scale = 10**15
    for word in (word for word in words if word not in ("a", "an", "and")):
        if word == "hundred":
            group, last = max(group, 1) * 100, 100
        elif word in SCALES:
            if SCALES[word] >= scale:
                return None
            total, scale, group, last = total + max(group, 1) * SCALES[word], SCALES[word], 0, 0
        else:
            value = _SMALL[word]
            # Units follow tens, tens and units follow hundreds: `twenty one`, and not `one twenty`.
            if last and not (last == 100 or (20 <= last < 100 and 0 < value < 10)):
                return None
            group, last = group + value, value or 1
    return Fraction(total + group)
