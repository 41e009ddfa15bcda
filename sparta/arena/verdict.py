"""Selects the verdict among the scores that a judge's text claims.

An object takes precedence over `Score: 8`, and this over `8/10`; among equals, the last one counts. A score is ignored if its sentence
quotes, reports or denies it, makes it hypothetical, or is a question. There is no verdict if the text contradicts itself, scores several
criteria without an overall score, or retracts the score.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from sparta.arena.vote_claims import KEYED, NUMBER, OBJECT, OF_TEN, ScoreClaim, claims_in
from sparta.arena.vote_context import is_corrected, is_taken_back, is_verdict
from sparta.arena.vote_objects import Object, TooManyReads, objects_in

_MAX_CLAIMS = 200
"""Maximum number of scores in one text; a text with more is a repetition loop, not a verdict."""

_VALUE = re.compile(rf"\s*(?P<number>{NUMBER}){OF_TEN}?\s*", re.IGNORECASE)
_SCALE = re.compile(r".*\b(?:max|maximum|out of|scale|range|best|highest)\b.*")
_CRITERION = re.compile(r"criteri(?:on|a)|aspect|dimension|category|metric|facet|side")
_OTHER_KEY = re.compile(r"(?:final|overall|total)(?: (?:score|rating|grade))?")
_OVERALL = re.compile(r"\W*(?:the\s+)?(?:overall|final|total|general)\b", re.IGNORECASE)
_LISTED = re.compile(r"\s*,\s*")

# In a text that was cut: the end of a complete score, the beginning of another score.
_ENDED = re.compile(r"""[*_`"'”’)\]$]*(?:[.!;]?[ \t]*\n|[.!;][ \t]+\w\w)""")
_BEGUN = re.compile(r"\b(?:scor\w*|rating|overall|verdict)\b|[0-9]\W*\Z", re.IGNORECASE)
_RUN_ON = re.compile(
    r"^[ \t]*+(?:<question>|<response>|<\|im_start\|>|<\|start_header_id\|>|\[INST\]"
    r"|(?:[#*]++[ \t]*+)?(?:question|user|human|instruction|problem|example)\b[ \t]*[0-9]*[*]*[ \t]*[:：])",
    re.IGNORECASE | re.MULTILINE,
)
_REACH = 200


def verdict_in(text: str, cut: bool = False) -> str | None:
    """The number that `text` (without thinking) gives as its verdict; None if there is none.

    cut: the text was cut at a token limit, so that its last score may be incomplete, or another may have followed.
    """
    try:
        objects = objects_in(text)
    except TooManyReads:
        return None
    prose = _masked(text, objects)
    of_objects, of_prose = list(_of_objects(text, objects)), claims_in(prose)
    if len(of_objects) + len(of_prose) > _MAX_CLAIMS:
        return None
    claims = [claim for claim in of_objects if is_verdict(text, claim.start, claim.end)]
    claims += [claim for claim in of_prose if is_verdict(prose, claim.start, claim.end)]
    claims = _before_another(text, claims)
    highest = max((claim.precedence for claim in claims), default=0)
    verdict = _last([claim for claim in claims if claim.precedence == highest])
    if verdict is None:
        return None
    for claim in claims:
        if claim.start < verdict.end or claim.value == verdict.value:
            continue
        if is_corrected(prose, verdict.end, claim.start):
            verdict = claim
        elif claim.precedence >= KEYED:
            return None
    if is_taken_back(prose, verdict.end) or (cut and not _is_complete(prose, verdict)):
        return None
    return verdict.value


def _before_another(text: str, claims: list[ScoreClaim]) -> list[ScoreClaim]:
    """The claims before the text continues with another question; all of them if it does not."""
    first = min((claim.end for claim in claims), default=0)
    other = _RUN_ON.search(text, first)
    return [claim for claim in claims if other is None or claim.start < other.start()]


def _last(claims: list[ScoreClaim]) -> ScoreClaim | None:
    """The last of claims with equal precedence; None if they are for several criteria and it is unclear which is for the whole response."""
    overall = [claim for claim in claims if claim.overall]
    last = next(reversed(overall or claims), None)
    if last is None:
        return None
    others = [claim for claim in claims if claim.value != last.value]
    if overall:
        return None if any(claim.start > last.start for claim in others) else last
    return None if last.criterion and any(claim.criterion != last.criterion for claim in others) else last


def _of_objects(text: str, objects: list[Object]) -> Iterator[ScoreClaim]:
    """The claims of objects. Objects separated by commas form a list, each for one criterion."""
    joined = [_LISTED.fullmatch(text, one.end, other.start) is not None for one, other in pairwise(objects)]
    for place, found in enumerate(objects):
        listed = any(joined[max(place - 1, 0) : place + 1])
        criteria = [value.text or "" for key, value in found.pairs if _CRITERION.fullmatch(key)]
        overall = any(map(_OVERALL.match, criteria))
        scored = bool(found.values("score"))
        if (scored and (overall or not criteria)) or (not scored and not found.closed):
            criterion = f"object {place}" if listed else ""
            yield ScoreClaim(found.start, found.end, _score(found), OBJECT, overall, criterion, finished=True)


def _score(found: Object) -> str | None:
    """The number under an object's own key `score`; None if it is missing, invalid, incomplete, on another scale or contradicted."""
    values = found.values("score")
    number = _VALUE.fullmatch(values[0].text or "") if values else None
    if (
        number is None
        or len({value.text for value in values}) > 1
        or not all(value.finished for value in values)
    ):
        return None
    for key, value in found.pairs:
        last = (re.findall(r"[0-9]+(?:\.[0-9]+)?", value.text or "") or [None])[-1]
        if last is not None and _SCALE.fullmatch(key) and float(last) != 10:
            return None
        if last is not None and _OTHER_KEY.fullmatch(key) and float(last) != float(number["number"]):
            return None
    return number["number"]


def _is_complete(text: str, claim: ScoreClaim) -> bool:
    """Whether a text that was cut holds the whole claim, does not begin another one after it, and has no further criterion to come."""
    line = text[max(claim.end, text.rfind("\n") + 1, len(text) - _REACH) :]
    ended = claim.finished or _ENDED.match(text, claim.end)
    return bool(ended) and not claim.criterion and not _BEGUN.search(line)


def _masked(text: str, objects: list[Object]) -> str:
    """`text` with its objects replaced by placeholder characters of the same length."""
    parts, at = [], 0
    for found in objects:
        parts += [text[at : found.start], "\ufffc" * (found.end - found.start)]
        at = found.end
    return "".join([*parts, text[at:]])
