"""What a judge's text, or its distribution over labels, says as a score, in 1..10 unless said otherwise (section 2; appendix C.2).

A score is read or it is missing: there is no default, and no guess. Whoever sees a missing vote may ask the judge again.
"""

import math
import re
from collections.abc import Iterator, Sequence

LOWEST, HIGHEST = 1.0, 10.0

# Digits are spelled [0-9] throughout: \d and float() also take the digits of other scripts.
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"

_TEN = r"10(?:\.0+)?(?![\w%]|[.,:/][0-9])"

# `score` and a colon, with what may stand between: a closing quote, markdown, a scale in brackets.
_KEY = re.compile(
    r"""(?<![\w-])(?:(?P<quote>["'])score(?P=quote)\s*:\s*"""
    r"""|score[ \t]*(?:\([^()\n]{0,20}\)[ \t]*)?["'”’]?[ \t*]*[:：=][ \t*`"'“‘(\[]*)""",
    re.IGNORECASE,
)

_JSON_VALUE = re.compile(
    rf"""(?P<quote>["']?)\s*(?P<number>{_NUMBER})(?:\s*/\s*{_TEN}|\s+out\s+of\s+{_TEN})?\s*(?P=quote)\s*(?:\}}|,(?![0-9]))""",
    re.IGNORECASE,
)

_PLAIN_VALUE = re.compile(
    rf"""(?P<number>{_NUMBER})[*`"'”’)\]]*+(?:\s*/\s*{_TEN}|\s+out\s+of\s+{_TEN})?+[*`"'”’)\]]*+"""
    # Not a number of its own: part of a word, a longer number, a percentage, a fraction, a sum, a range, a share of something else.
    r"""(?![\w/^×~]|[.:][0-9]|,[ \t]*[0-9]|[ \t]*[%/×]|[ \t]+[0-9]|[ \t]*[-+*–—−][ \t]*[0-9]"""
    r"""|[ \t]*(?:\([^()\n]{0,20}\)[ \t]*)?(?:to|or|and|through)[ \t]+[0-9]|[ \t]*[(\[]?[ \t]*(?:out[ \t]+)?of\b)""",
    re.IGNORECASE,
)

# After `score:`, what claims to be a number or to be no score; other words are prose about the score.
_CLAIM = re.compile(r"[-+.−]?(?:\d|[.,][0-9]|nan\b|inf|none\b|null\b|n/a\b)", re.IGNORECASE)

_OVER_TEN = re.compile(rf"/[ \t]*{_TEN}")

# The last word before `/10`, without brackets and markdown around it; a numerator is at most this long.
_NUMERATOR = re.compile(r"""(?P<number>[^\s\[\](){}<>"'“‘`*=]*[0-9])[*`"'”’)\]]*[ \t]*\Z""")
_NUMERATOR_REACH = 64


def parse_score(
    text: str, *, bare: bool = True, lowest: float = LOWEST, highest: float = HIGHEST
) -> float | None:
    """The score in `lowest`..`highest` that a judge's `text` gives, or None where it is missing. Scores are out of ten: `8/10`.

    Read are `{"score": 8}` with either quotes, `Score: 8` and `8/10`, alone or amid other text, and, with `bare`, a text that
    is a number and nothing else. Decimals are scores too. The last of them counts: if it is out of range, or is no number
    after all (`{"score": n}`, `Score: 1-10`, `Score: 7/100`), the vote is missing, whatever stands before. A JSON value must be closed by
    `}` or `,`, because `{"score": 1` may be a 10 that was cut off. Never raises.
    """
    if bare and re.fullmatch(_NUMBER, text.strip()):
        return _in_range(text.strip(), lowest, highest)
    last = max([*_keyed(text), *_over_ten(text)], default=None, key=lambda claim: claim[0])
    return None if last is None or last[1] is None else _in_range(last[1], lowest, highest)


def expected_score(probabilities: Sequence[float]) -> float:
    """The mean of a distribution over score labels, worst label first, mapped linearly onto 1..10 (the `expected` way of voting).

    probabilities: [labels], at least two, not negative; they are divided by their sum. Raises ValueError for anything else.
    """
    total = math.fsum(probabilities)
    if len(probabilities) < 2 or not all(p >= 0 for p in probabilities) or not 0 < total < math.inf:
        raise ValueError(f"not a distribution over at least two labels: {list(probabilities)}")
    mean = math.fsum(label * p for label, p in enumerate(probabilities)) / total
    score = LOWEST + (HIGHEST - LOWEST) * mean / (len(probabilities) - 1)
    return min(max(score, LOWEST), HIGHEST)


def _keyed(text: str) -> Iterator[tuple[int, str | None]]:
    """Where `score:` claims a value, and the value, None where it is not a number."""
    for key in _KEY.finditer(text):
        value = (_JSON_VALUE if key["quote"] else _PLAIN_VALUE).match(text, key.end())
        if value:
            yield key.end(), value["number"]
        elif key["quote"] or _CLAIM.match(text, key.end()):
            yield key.end(), None


def _over_ten(text: str) -> Iterator[tuple[int, str | None]]:
    """Where something stands over ten, and what."""
    for ten in _OVER_TEN.finditer(text):
        start = max(0, ten.start() - _NUMERATOR_REACH)
        above = _NUMERATOR.search(text[start : ten.start()])
        if above:
            number, whole = above["number"], above.start() > 0 or start == 0
            yield start + above.start(), number if whole and re.fullmatch(_NUMBER, number) else None


def _in_range(number: str, lowest: float, highest: float) -> float | None:
    score = float(number)
    return score if lowest <= score <= highest else None
