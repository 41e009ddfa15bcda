"""Which of the scores that a judge's text claims is its verdict.

The firmest counts, an object before `Score: 8` before `8/10`, and of equally firm ones the last. It is no verdict where its sentence quotes,
reports, denies, supposes or asks it; and there is none where the text says different things of one firmness at once, of several criteria without
an overall score, or takes the score back.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from sparta.arena.vote_claims import KEYED, NUMBER, OBJECT, OF_TEN, Claim, claims_in
from sparta.arena.vote_context import is_corrected, is_taken_back, is_verdict
from sparta.arena.vote_objects import Object, Tangled, objects_in

_MOST = 200
"""Scores in one text; a longer row of them is a loop, not a verdict."""

_VALUE = re.compile(rf"\s*(?P<number>{NUMBER}){OF_TEN}?\s*", re.IGNORECASE)
_SCALE = re.compile(r".*\b(?:max|maximum|out of|scale|range|best|highest)\b.*")
_SIDE = re.compile(r"criteri(?:on|a)|aspect|dimension|category|metric|facet|side")
_RIVAL = re.compile(r"(?:final|overall|total)(?: (?:score|rating|grade))?")
_OVERALL = re.compile(r"\W*(?:the\s+)?(?:overall|final|total|general)\b", re.IGNORECASE)
_LISTED = re.compile(r"\s*,\s*")

# What a text that was cut may end in: a score behind which nothing matters, another score that was begun.
_ENDED = re.compile(r"""[*_`"'”’)\]$]*(?:[.!;]?[ \t]*\n|[.!;][ \t]+\w\w)""")
_BEGUN = re.compile(r"\b(?:scor\w*|rating|overall|verdict)\b|[0-9]\W*\Z", re.IGNORECASE)
_RUN_ON = re.compile(
    r"^[ \t]*+(?:<question>|<response>|<\|im_start\|>|<\|start_header_id\|>|\[INST\]"
    r"|(?:[#*]++[ \t]*+)?(?:question|user|human|instruction|problem|example)\b[ \t]*[0-9]*[*]*[ \t]*[:：])",
    re.IGNORECASE | re.MULTILINE,
)
_REACH = 200


def verdict_in(text: str, cut: bool = False) -> str | None:
    """The number that `text`, which has no thinking, gives as its verdict; None where there is none.

    cut: the text ends where a limit was, so that its last score may not be whole, and not the last.
    """
    try:
        objects = objects_in(text)
    except Tangled:
        return None
    prose = _masked(text, objects)
    of_objects, of_prose = list(_of_objects(text, objects)), claims_in(prose)
    if len(of_objects) + len(of_prose) > _MOST:
        return None
    claims = [claim for claim in of_objects if is_verdict(text, claim.start, claim.end)]
    claims += [claim for claim in of_prose if is_verdict(prose, claim.start, claim.end)]
    claims = _before_another(text, claims)
    firmest = max((claim.firmness for claim in claims), default=0)
    verdict = _last([claim for claim in claims if claim.firmness == firmest])
    if verdict is None:
        return None
    for claim in claims:
        if claim.start < verdict.end or claim.value == verdict.value:
            continue
        if is_corrected(prose, verdict.end, claim.start):
            verdict = claim
        elif claim.firmness >= KEYED:
            return None
    if is_taken_back(prose, verdict.end) or (cut and not _is_complete(prose, verdict)):
        return None
    return verdict.value


def _before_another(text: str, claims: list[Claim]) -> list[Claim]:
    """The claims before the text runs on with another question, where there are some; else all."""
    first = min((claim.end for claim in claims), default=0)
    other = _RUN_ON.search(text, first)
    return [claim for claim in claims if other is None or claim.start < other.start()]


def _last(claims: list[Claim]) -> Claim | None:
    """The last of equally firm claims; None where they are of several sides of the response, and which is for the whole cannot be told."""
    overall = [claim for claim in claims if claim.overall]
    last = next(reversed(overall or claims), None)
    if last is None:
        return None
    others = [claim for claim in claims if claim.value != last.value]
    if overall:
        return None if any(claim.start > last.start for claim in others) else last
    return None if last.side and any(claim.side != last.side for claim in others) else last


def _of_objects(text: str, objects: list[Object]) -> Iterator[Claim]:
    """The claims of objects. Those that commas join are of one list, and about a side of the response each."""
    joined = [_LISTED.fullmatch(text, one.end, other.start) is not None for one, other in pairwise(objects)]
    for place, found in enumerate(objects):
        listed = any(joined[max(place - 1, 0) : place + 1])
        sides = [value.text or "" for key, value in found.pairs if _SIDE.fullmatch(key)]
        overall = any(map(_OVERALL.match, sides))
        scored = bool(found.values("score"))
        if (scored and (overall or not sides)) or (not scored and not found.closed):
            side = f"object {place}" if listed else ""
            yield Claim(found.start, found.end, _score(found), OBJECT, overall, side, finished=True)


def _score(found: Object) -> str | None:
    """The number of an object's own score; None where it is none, is not whole, is on another scale or contradicted."""
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
        if last is not None and _RIVAL.fullmatch(key) and float(last) != float(number["number"]):
            return None
    return number["number"]


def _is_complete(text: str, claim: Claim) -> bool:
    """Whether a text that was cut has the whole claim, no other one begun behind it, and no other side of the response to come."""
    line = text[max(claim.end, text.rfind("\n") + 1, len(text) - _REACH) :]
    ended = claim.finished or _ENDED.match(text, claim.end)
    return bool(ended) and not claim.side and not _BEGUN.search(line)


def _masked(text: str, objects: list[Object]) -> str:
    """`text` with nothing to read where objects are."""
    parts, at = [], 0
    for found in objects:
        parts += [text[at : found.start], "\ufffc" * (found.end - found.start)]
        at = found.end
    return "".join([*parts, text[at:]])
