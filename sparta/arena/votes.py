"""Parses a judge's score from its text, or computes it from a distribution over labels (section 2; appendix C.2). Default range: 1..10.

A score that cannot be read is missing: there is no default and no guess. Callers may ask the judge again for a missing vote.
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
    """The score in `lowest`..`highest` that a judge's `text` gives, or None if it is missing. Scores are out of ten: `8/10`.

    Accepted formats: `{"score": 8}` with either quotes, `Score: 8` and `8/10`, alone or within other text; with `bare` also a text that
    is only a number. Decimals are allowed. An object takes precedence over `Score: 8`, and this over `8/10`; among equals, the last one
    counts. Ignored are numbers inside an object's values, and scores that are quoted, denied, struck out or for one criterion (see
    sparta.arena.verdict). If the score that counts is out of range or not a number (`{"score": n}`, `Score: 7-8`, `Score: 7/100`), the
    vote is missing, even if another score precedes it. If the text has thinking, only the text after it counts; if the thinking does not
    end, the vote is missing.

    cut: the text was cut at its token limit. A score then counts only if no continuation could change it; `{"score": 1` and `Score: 1`
    are therefore missing. Never raises.
    """
    visible = verdict_text(text)
    if not is_object(visible.strip()):
        visible = after_thinking(visible) or ""
    if re.fullmatch(NUMBER, visible.strip()):
        number = visible if bare and not cut else None
    else:
        number = verdict_in(visible, cut)
    score = math.nan if number is None else float(number)
    return score if lowest <= score <= highest else None


def after_thinking(text: str) -> str | None:
    """The part of `text` after its thinking: all of `text` if there is no thinking, None if the thinking does not end."""
    last = None
    for found in _THINKING.finditer(text):
        last = found
    if last is None:
        return text
    return text[last.end() :] if last["ends"] else None


def expected_score(probabilities: Sequence[float]) -> float:
    """The mean of a distribution over score labels, worst label first, mapped linearly onto 1..10 (judging mode `expected`).

    probabilities: [labels], at least two, non-negative; they are normalised by their sum. Raises ValueError otherwise.
    """
    total = math.fsum(probabilities)
    if len(probabilities) < 2 or not all(p >= 0 for p in probabilities) or not 0 < total < math.inf:
        raise ValueError(f"not a distribution over at least two labels: {list(probabilities)}")
    mean = math.fsum(label * p for label, p in enumerate(probabilities)) / total
    score = LOWEST + (HIGHEST - LOWEST) * mean / (len(probabilities) - 1)
    return min(max(score, LOWEST), HIGHEST)
