"""Decides from the context of a score whether it is the judge's own verdict, or quoted, reported, denied, hypothetical or in a question.

Only the sentence around a score is searched, up to `_REACH` characters, so that the time grows linearly with the text.
"""

import re

_REACH = 240

_SENTENCE_ENDS = re.compile(r"""[.!?。！？][*_"'”’)\]]*\s+|[*_ \t]*\n\s*""")
_CLAUSE_ENDS = re.compile(
    r"[.!?;:,。！？；：，—–|]\s*|\n|\b(?:but|so|therefore|thus|hence|however|because|since)\b", re.IGNORECASE
)
_ASKED = re.compile(r"(?:[^.!?\n。！？]|\.(?=\S))*+[?？]")

_DENIED = re.compile(
    r"\b(?:not|never|no|nor|neither|without|cannot|(?:instead|short|because)\s+of|than|hardly|far\s+from|unlike|against|avoid\w*)\b|n['’]t\b|不",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:if|unless|whether|(?<!\bscore\s)(?<!\brating\s)would\s+(?:be|have|need|get|deserve|earn|merit)|could|might|may|maybe|perhaps|possibly|at\s+(?:least|most|first)|almost"
    r"|nearly|(?:close|up)\s+to|over|under|above|below|from|initially|previously|originally|to\s+(?:be|get|reach|earn|deserve|become|receive|merit)|too"
    r"|supposed(?:ly)?|alleged(?:ly)?)\b",
    re.IGNORECASE,
)

# Subjects other than the judge, and what they do with a score.
_WHO = (
    r"\b(?:responses?|answers?|candidates?|users?|students?|assistants?|authors?|texts?|writers?|prompts?|submissions?|solutions?|reply|replies|models?"
    r"|essays?|stor(?:y|ies)|questions?|instructions?|it|they|he|she|someone|somebody)\b['’\w\s]{0,40}?\s"
)
_REPORTED = re.compile(
    rf"{_WHO}(?:claim|sa(?:y|ys|id)\b|ask|tr(?:y|ies|ied|ying)\b|demand|want|request|inject|insist|t(?:ell|ells|old)\b|instruct(?:s|ed|ing)?\b|wr(?:ites?|ote)\b"
    r"|assert|attempt|declar|quot|begs?\b|pretend|promis|self-|(?:rat|grad|scor|giv|award|assign)\w*\s+(?:\w+sel(?:f|ves)|(?:its|their|his|her)\s+own)\b)"
    rf"|{_WHO}(?:end|begin|start|clos|conclud)\w*\s+(?:with|by)\b"
    r"|\b(?:refus|declin|inject|quot)\w*"
    r"|\b(?:for\s+(?:example|instance)|e\.g\.|such\s+as|according\s+to|(?:reply|respond|answer)\s+with|in\s+the\s+form(?:at)?|as\s+(?:requested|asked|demanded|told))\b",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    rf"{_WHO}(?:contain|includ|stat|mention|suggest|read|propos|recommend|output|return|giv|produc|generat|print|show|display)\w*(?:\s+(?:with|in|on|by|the|an?|this|that|of"
    r"|lines?|text|words?|phrase|string|sentence|json|score|following|itself|its|own|saying)\b)*(?:[^\w.!?]|\b(?:final|overall|total|my|score)\b)*\Z",
    re.IGNORECASE,
)
_OWN_AFTER_ALL = re.compile(
    r"(?:\b(?:but|so|and|yet|therefore|thus|hence)\b|[,;])\s*(?:I|my|we|our)\b", re.IGNORECASE
)

_CLOSING = r"""[*_`"'”’」»)\]}>$ \t]*"""
_AFFIRMED = (
    r"(?:is|was|would\s+be|will\s+be|seems|feels)\s+(?:(?:quite|very|entirely|only|also)\s+)*(?:my|our|what\s+I|the\s+(?:final|overall|right|correct|score|verdict)|an?\s+(?:fair|good)"
    r"|fair|right|appropriate|justified|warranted|reasonable|deserved|well)\b"
)
_UNDONE = re.compile(
    rf"{_CLOSING}(?:,\s*)?(?!{_AFFIRMED})(?:(?:is|was|are|were|would|could|does|did)(?:n['’]t)?|will|might|may|should|cannot|can['’]t|seems|(?:for\s+)?itself"
    r"|as\s+(?:requested|asked|demanded|instructed|told|it\s+(?:asks|wants|demands|requests))|(?:(?:it|the\s+(?:response|answer|candidate|text|user|student))\s+)?(?:says?|claims?|said|claimed|writes?|wrote|asks?)"
    r"|too\s+(?:high|low|harsh|generous|strict|lenient)|if|unless)\b",
    re.IGNORECASE,
)

_SINGLE_OPENED = re.compile(r"(?:\A|(?<=[\s(:]))['‘](?=[\w*{])(?!.*['’](?!\w))", re.DOTALL)
_SINGLE_CLOSED = re.compile(r"['’](?!\w)")
_QUOTES = {'"': '"', "“": "”", "«": "»", "「": "」"}

# At the beginning of a sentence or a clause.
_TAKEN_BACK = re.compile(
    r"(?:[.!?\n(,;:—–…]|\b(?:but|oh|hmm|no)\b)\W{0,6}(?:wait|hold\s+on|on\s+second\s+thoughts?|scratch\s+that|correction|I\s+take\s+(?:it|that)\s+back|I\s+was\s+wrong"
    r"|I\s+change\s+my\s+mind|actually,?\s+no|let\s+me\s+(?:re\w*|check|think|look|verify))\b",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"\b(?:wait|hold\s+on|second\s+thoughts?|scratch\s+that|correction|no|actually|I\s+mean|rather|that\s+is|that['’]s|i\.e\.|in\s+other\s+words|make\s+(?:it|that)|instead|sorry"
    r"|(?:re(?:vis|consider)|adjust|chang|lower|rais|downgrad|upgrad)\w*)\b",
    re.IGNORECASE,
)


def is_verdict(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` is the judge's own verdict, judging by its sentence."""
    before, rest = _sentence_before(text, start), text[end : end + _REACH]
    clause = before[max((found.end() for found in _CLAUSE_ENDS.finditer(before)), default=0) :]
    return not (
        _DENIED.search(clause)
        or _SUPPOSED.search(clause)
        or _is_reported(before)
        or _is_quoted(text, start, end)
        or _UNDONE.match(rest)
        or _ASKED.match(rest)
    )


def is_taken_back(text: str, end: int) -> bool:
    """Whether the text after a score retracts it, or begins to."""
    return _TAKEN_BACK.search(text, end) is not None


def is_corrected(text: str, end: int, start: int) -> bool:
    """Whether the score that begins at `start` corrects the one that ends at `end`."""
    return _CORRECTED.search(text, end, start) is not None


def _sentence_before(text: str, start: int) -> str:
    """The part of the sentence before `start`, on the same line; a line that ends with a colon continues on the next."""
    before = text[max(0, start - _REACH) : start]
    ends = [
        found.end()
        for found in _SENTENCE_ENDS.finditer(before)
        if "\n" not in found[0] or not before[: found.start()].endswith((":", "："))
    ]
    return before[max(ends, default=0) :]


def _is_reported(before: str) -> bool:
    reported = _REPORTED.search(before)
    return bool((reported and not _OWN_AFTER_ALL.search(before, reported.end())) or _SHOWN.search(before))


def _is_quoted(text: str, start: int, end: int) -> bool:
    """Whether it is in quotation marks and its line has words outside of them."""
    before = text[max(0, start - _REACH) : start].rpartition("\n")[2]
    after = text[end : end + _REACH].partition("\n")[0]
    for opening, closing in _QUOTES.items():
        place = before.rfind(opening)
        within = before.count(opening) % 2 if opening == closing else place > before.rfind(closing)
        if within and re.search(r"\w", before[:place] + after.partition(closing)[2]):
            return True
    opened, closed = _SINGLE_OPENED.search(before), _SINGLE_CLOSED.search(after)
    return bool(opened and closed and re.search(r"\w", before[: opened.start()] + after[closed.end() :]))
