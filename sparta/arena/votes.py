"""What a judge's text, or its distribution over labels, says as a score, in 1..10 unless said otherwise (section 2; appendix C.2).

A score is read or it is missing: there is no default, and no guess. Whoever sees a missing vote may ask the judge again.
"""

import math
import re
from collections.abc import Sequence

from sparta.arena.verdict import verdict_in
from sparta.arena.vote_claims import NUMBER
from sparta.arena.vote_objects import is_object
from sparta.arena.vote_text import verdict_text

LOWEST, HIGHEST = 1.0, 10.0

_NAME = r"(?:\w{1,20}:)?(?:think|thinking|thoughts?|reasoning|reflection)\b[^<>\n]{0,40}"
_THINKING = re.compile(
    rf"(?P<ends><\s*/\s*{_NAME}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final\b(?:[^<>\n]{{0,40}}<\|message\|>)?)"
    rf"|<\s*{_NAME}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>",
    re.IGNORECASE,
)


def parse_score(
    text: str, *, bare: bool = True, cut: bool = False, lowest: float = LOWEST, highest: float = HIGHEST
) -> float | None:
    """The score in `lowest`..`highest` that a judge's `text` gives, or None where it is missing. Scores are out of ten: `8/10`.

    Read are `{"score": 8}` with either quotes, `Score: 8` and `8/10`, alone or amid other text, and, with `bare`, a text that is a number and
    nothing else. Decimals are scores too. An object counts before the other two, `Score: 8` before `8/10`, then the last; what is inside an
    object's values does not count, nor what is quoted, denied, struck out or about one criterion (see sparta.arena.verdict). If the one that
    counts is out of range, or is no number after all (`{"score": n}`, `Score: 7-8`, `Score: 7/100`), the vote is missing, whatever stands
    before. Of a text with thinking, what follows it counts; thinking that does not end is missing.

    cut: the text ends where its token limit was: a score counts only if nothing that might have followed would change it, as it would
    `{"score": 1` and `Score: 1`. Never raises.
    """
    seen = verdict_text(text)
    if not is_object(seen.strip()):
        seen = after_thinking(seen) or ""
    if re.fullmatch(NUMBER, seen.strip()):
        number = seen if bare and not cut else None
    else:
        number = verdict_in(seen, cut)
    score = math.nan if number is None else float(number)
    return score if lowest <= score <= highest else None


def after_thinking(text: str) -> str | None:
    """What follows the thinking in `text`, all of it where there is none; None where thinking does not end."""
    last = None
    for found in _THINKING.finditer(text):
        last = found
    if last is None:
        return text
    return text[last.end() :] if last["ends"] else None


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
