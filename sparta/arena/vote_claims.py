"""Finds the scores claimed in the prose of a judge's text: `Score: 8` and similar, and `8/10`.

A claim is anything that looks like a score. If it is not a valid one (`Score: 7-8`), it has no value. The score of one criterion
(`Style score: 3`, `Accuracy: 9/10`, `8/10 for style`) is not a claim.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sparta.arena.vote_labels import headings_in, is_overall, label_of_fraction, label_of_key

# Digits are spelled [0-9] throughout: \d and float() also take the digits of other scripts.
NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
TEN = r"10(?:\.0+)?(?![\w%]|[.,:/][0-9])"
OF_TEN = rf"(?:\s*/\s*{TEN}|\s+out\s+of\s+{TEN})"

OVER_TEN, KEYED, OBJECT = 1, 2, 3
"""The precedence of a claim: `8/10` in a sentence; `Score: 8`, or an `8/10` labelled as overall; a JSON object or an XML tag."""


@dataclass(frozen=True)
class ScoreClaim:
    """start, end: the position in the text. value: None if it is not a valid number. overall: whether it is labelled as overall or final.

    criterion: the criterion that it may belong to, by a heading above it or its place in a list; "" for the whole response. finished:
    no continuation could change the value.
    """

    start: int
    end: int
    value: str | None
    precedence: int
    overall: bool = False
    criterion: str = ""
    finished: bool = False


# `score` and a colon, with optional text between: markdown, a closing quote, a scale, whose score it is. After a colon at the end of a line, a
# number counts if it is alone on the next line.
_KEY = re.compile(
    rf"""(?<![\w-])(?:(?P<json>["'])score(?P=json)\s*:\s*
    |(?P<tag><score>)\s*
    |(?P<key>score|(?P<other>rating|grade|overall|final|total)|评分|得分|打分)["'”’]?
        (?P<scale>(?:[ \t]*[(\[（][^()\[\]（）\n]{{0,40}}[)\]）])?
            (?:[ \t]+(?:out[ \t]+of|from|on)[ \t][^\n:=]{{1,40}}?|[ \t]+(?:for|of)[ \t]+(?:the|this)[ \t][^\n:=]{{1,30}}?)?)
        (?:["'”’]?[ \t*_]*[:：=|]|[ \t*_]+(?:is|of)\b:?)[ \t]*
        (?:[*_]*[ \t]*\n\s*(?=[*_]*{NUMBER}[*_]*(?:[ \t]*/[ \t]*10)?[ \t]*(?:\n|\Z)))?[ \t*_`"'“‘(\[$]*)""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSE = r"""[*_`"'”’)\]$]*+"""
_HEDGE = r"(?:(?:maybe|perhaps|possibly|even|an?)[ \t]+)?"
_JSON_VALUE = re.compile(
    rf"""(?P<quote>["']?)\s*(?P<number>{NUMBER}){OF_TEN}?\s*(?P=quote)\s*(?:\}}|,(?![0-9]))""", re.IGNORECASE
)
_PLAIN_VALUE = re.compile(
    rf"""(?P<number>{NUMBER}){_CLOSE}(?:{OF_TEN}|分)?+{_CLOSE}"""
    # Not followed by anything that makes it part of a word, a longer number, a percentage, a fraction, a sum, a range or a share.
    rf"""(?![\w/^×~～]|[.:][0-9]|[ \t]*[%/×～]|[ \t]+[0-9]|,[ \t]*(?:or[ \t]+)?{_HEDGE}[0-9]|[ \t]*[-+*–—−][ \t]*[0-9]"""
    rf"""|[ \t]*(?:\([^()\n]{{0,20}}\)[ \t]*)?(?:to|or|and|through)[ \t]+{_HEDGE}[*(]*[0-9]|[ \t]*[(\[][ \t]*(?:or[ \t]+|to[ \t]+)?{_HEDGE}[0-9]"""
    r"""|[ \t]*(?:->|=>|→|⇒)|[ \t]+(?:hundred|thousand|million|percent|per[ ]cent|plus|minus|times|stars?)\b|[ \t]*(?:out[ \t]+)?of\b|[ \t]+(?:von|sur|su|из|de)[ \t]+[0-9])""",
    re.IGNORECASE,
)
_TAG_ENDS = re.compile(r"\s*</score>", re.IGNORECASE)
_ALONE = re.compile(rf"{_CLOSE}[ \t]*(?:points?\b|pts\b)?[ \t]*(?:\Z|[\n.,;!|(<])", re.IGNORECASE)
# After a key: a number-like value, or a word for "no score". Any other words are prose about the score.
_CLAIMED = re.compile(r"[-+.−]?(?:\d|[.,][0-9]|nan\b|inf|none\b|null\b|n/a\b)", re.IGNORECASE)

# Scales: where they are named, and the words allowed in a scale between `score` and its colon.
_SCALE_BEFORE = re.compile(r"\b(?:scale|range|out\s+of|from)\b[^.\n]{0,40}\Z", re.IGNORECASE)
_SCALE_BEHIND = re.compile(
    r"[ \t,]*[(（\[]?[ \t]*(?:points?[ \t]+|marks?[ \t]+)?(?:(?:on|in|where|out|max|from)\b|满分)[^.\n)）\]]{0,60}",
    re.IGNORECASE,
)
_SCALE = re.compile(
    r"(?:\b(?:out|of|from|to|on|in|the|a|an|max|maximum|min|minimum|scale|range|overall|worst|best|low|high|lowest|highest|being|is|points?|for|this"
    r"|response|answer|reply|assistant|candidate|student|between|and|higher|better|total|final|integer|number)\b|[^\w]|[0-9]|['’]s\b)*",
    re.IGNORECASE,
)

_OVER = re.compile(rf"/[ \t]*{TEN}")
# The last word before `/10`, without brackets and markdown around it, and the maximum length of a numerator.
_NUMERATOR = re.compile(r"""(?P<number>[^\s\[\](){}<>"'“‘`*=|$]*[0-9])[*`"'”’)\]$]*[ \t]*\Z""")
_NUMERATOR_REACH = 64
_RANGE_BEFORE = re.compile(
    rf"[0-9](?:/10)?{_CLOSE}[ \t]*(?:to|or|and|through|[-–—~])[ \t]*{_HEDGE}[*(\[]*\Z", re.IGNORECASE
)
_RANGE_BEHIND = re.compile(
    rf"{_CLOSE}[ \t,]*(?:to|or|and|through|[-–—~])[ \t]*{_HEDGE}[*(\[]*[0-9]|{_CLOSE},[ \t]*(?:maybe|perhaps|possibly)[ \t]+[0-9]",
    re.IGNORECASE,
)
# `9/10 for style` is the score of one criterion, `9/10 problems` is not a score.
_CRITERION_BEHIND = re.compile(
    rf"{_CLOSE}[ \t]+(?:for|on|in)[ \t]+(?P<criterion>[^\n.,;]{{1,40}})", re.IGNORECASE
)
_WHOLE = re.compile(
    r"(?:\b(?:an?|the|this|that|its?|my|your|me|entire|whole|overall|given|response|answer|reply|assistant|candidate|student|total|general|effort)\b"
    r"|['’]s\b|\s)*",
    re.IGNORECASE,
)
_NOUN_BEHIND = re.compile(
    rf"""{_CLOSE}[ \t]+(?!(?:overall|points?|pts|marks|stars|because|since|as|and|but|or|for|on|in|given|due|with|at|then|from|only|here|is|was|seems|would|so
        |though|although|while|which|total|score|rating|to|if|too|it|this|i|my|should|could|might|will|says|may)\b)[^\W\d_]""",
    re.IGNORECASE | re.VERBOSE,
)

_WINDOW = 80
"""Characters before a score, on its line, that are searched for its label."""


def claims_in(text: str) -> list[ScoreClaim]:
    """The claims of `text`, in order."""
    found: list[ScoreClaim] = []
    for claim in sorted([*_keyed(text), *_over_ten(text)], key=lambda claim: claim.start):
        # `Score: 8/10` is one claim.
        if not found or claim.start >= found[-1].end:
            found.append(claim)
    return list(_below_headings(text, found))


def _keyed(text: str) -> Iterator[ScoreClaim]:
    """The claims of the form `score: 8`."""
    for key in _KEY.finditer(text):
        if key["json"]:
            value = _JSON_VALUE.match(text, key.end())
            number = value and value["number"]
            yield ScoreClaim(key.start(), (value or key).end(), number, KEYED, finished=bool(value))
            continue
        before, scale = _line_before(text, key.start()), key["scale"] or ""
        label = label_of_key(before)
        if label.criterion or not _SCALE.fullmatch(scale):
            continue
        value = _PLAIN_VALUE.match(text, key.end())
        if key["tag"]:
            ended = value and _TAG_ENDS.match(text, value.end())
            number = value["number"] if value and ended else None
            yield ScoreClaim(key.start(), (ended or key).end(), number, OBJECT, finished=bool(ended))
        elif value and (not key["other"] or _ALONE.match(text, value.end())):
            scales = (_SCALE_BEFORE.search(before), key["scale"], _SCALE_BEHIND.match(text, value.end()))
            number = value["number"] if all(map(_is_of_ten, scales)) else None
            yield ScoreClaim(
                key.start(), value.end(), number, KEYED, label.overall or is_overall(key["other"] or "")
            )
        elif not key["other"] and _CLAIMED.match(text, key.end()):
            yield ScoreClaim(key.start(), key.end(), None, KEYED)


def _over_ten(text: str) -> Iterator[ScoreClaim]:
    """The claims of the form `8/10`."""
    for ten in _OVER.finditer(text):
        place = max(0, ten.start() - _NUMERATOR_REACH)
        above = _NUMERATOR.search(text[place : ten.start()])
        if above is None:
            continue
        start, whole = place + above.start(), above.start() > 0 or place == 0
        before = _line_before(text, start)
        label, criterion = label_of_fraction(before), _CRITERION_BEHIND.match(text, ten.end())
        if (
            label is None
            or label.criterion
            or (criterion and not _WHOLE.fullmatch(criterion["criterion"]))
            or _NOUN_BEHIND.match(text, ten.end())
        ):
            continue
        clear = whole and not _RANGE_BEFORE.search(before) and not _RANGE_BEHIND.match(text, ten.end())
        number = above["number"] if clear and re.fullmatch(NUMBER, above["number"]) else None
        yield ScoreClaim(start, ten.end(), number, KEYED if label.overall else OVER_TEN, label.overall)


def _line_before(text: str, start: int) -> str:
    window = text[max(0, start - _WINDOW) : start]
    return window[window.rfind("\n") + 1 :]


def _is_of_ten(scale: re.Match[str] | str | None) -> bool:
    """Whether the largest number in the description of a scale is ten; true if it has no numbers."""
    named = scale[0] if isinstance(scale, re.Match) else scale or ""
    return max(map(float, re.findall(r"[0-9]+(?:\.[0-9]+)?", named)), default=10) == 10


def _below_headings(text: str, claims: list[ScoreClaim]) -> Iterator[ScoreClaim]:
    headings = iter(headings_in(text))
    criterion, following = "", next(headings, None)
    for claim in claims:
        while following and following[0] <= claim.start:
            criterion, following = following[1], next(headings, None)
        yield replace(claim, criterion=criterion)
