"""Labels of scores in a judge's text: overall, or for one criterion (`Style score: 3`, `Accuracy: 9/10`, a heading `## Style`)."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class HeadingLabel:
    """criterion: the score is for one criterion. overall: it is labelled as the overall or final one."""

    criterion: bool = False
    overall: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OVERALL = _words(
    "overall final finally total combined aggregate verdict conclusion revised corrected updated 总 最终 综合"
)
_FUNCTION = _words(
    "a an the this that my our its it is as of to with and so then thus hence therefore i we give gives given assign assigns award at by on"
    " but however yet or not no if because since when while for in from than about also now here only just still"
)
_NEUTRAL = _words(
    "score scores scored rating rated rate grade graded say says i'd i'll i’d i’ll would will response response's response’s answer answer's answer’s reply"
    " judge judge's judge’s evaluation assessment evaluator result results summary judgement judgment vote numeric numerical single whole general net me"
    " fair solid decent strong weak low high appropriate recommended suggested resulting awarded assigned giving get gets deserves receives merits earns"
)
_KNOWN = _OVERALL | _FUNCTION | _NEUTRAL
_LEADING = _KNOWN | _words(
    "be been was at deserve merit about around exactly just now mean only likely still clear it's it’s"
)
_VERBS = _words("is was are were be has have does do looks seems it's it’s that's that’s")

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_WORDS_BEFORE = re.compile(r"""(?:[^\W\d_]+(?:['’-][^\W\d_]+)*[ \t*_`"'“(\[$]+){1,4}\Z""")
_LABEL = re.compile(r"""(?P<label>[^\n:：=|.!?,;]{1,60})(?:[:：=|]|(?<=\s)[-–—])[ \t*_`"'“(\[$|]*\Z""")
_KEY_BEFORE = re.compile(r"\b(?:score|rating|grade)\b[^\w\n]*\Z", re.IGNORECASE)
_ONE_OF_SEVERAL = re.compile(
    r"\b(?:[Rr]esponse|[Aa]nswer|[Cc]andidate|[Aa]ssistant|[Mm]odel)[ ]+#?(?:[A-Z]|[0-9]+)\b"
)
_HEADING = re.compile(
    r"^[ \t]*(?:#+[ \t]*[^\n]+|(?:[0-9]+[.)][ \t]*)?\*\*[^*\n]{1,60}\*\*:?|(?:[0-9]+[.)][ \t]+)?\w+(?:[ ]\w+){0,2}:?)[ \t]*$",
    re.MULTILINE,
)


def is_overall(word: str) -> bool:
    return word.lower() in _OVERALL


def label_of_key(before: str) -> HeadingLabel:
    """The label of `score: 8`, from the words directly before it and from a label before those: `Style - Score: 3`.

    before: the part of the line before the key.
    """
    overall = False
    found = _WORDS_BEFORE.search(before)
    for word in reversed(_WORD.findall(found[0].lower()) if found else []):
        if word in _FUNCTION:
            return HeadingLabel(overall=overall)
        if word not in _KNOWN:
            return HeadingLabel(criterion=True)
        overall |= word in _OVERALL
    return _label(before[: found.start()] if found else before) or HeadingLabel(overall=overall)


def label_of_fraction(before: str) -> HeadingLabel | None:
    """The label of `8/10`, from a label or the word before it; None if that word shows that it is not a score: `solved 9/10`."""
    key = _KEY_BEFORE.search(before)
    label = label_of_key(before[: key.start()]) if key else _label(before)
    if label or before.lstrip().startswith("|"):
        return label
    found = _WORDS_BEFORE.search(before)
    words = _WORD.findall(found[0].lower()) if found else []
    if words and words[-1] in ("is", "was"):
        words = words[:-1]
    return HeadingLabel() if not words or words[-1] in _LEADING else None


def headings_in(text: str) -> list[tuple[int, str]]:
    """The end of each heading in `text` with the criterion that it names; "" if it names none."""
    found = []
    for heading in _HEADING.finditer(text):
        words = _WORD.findall(heading[0].lower())
        whole = _KNOWN.issuperset(words) or not _OVERALL.isdisjoint(words)
        found.append((heading.end(), "" if whole else heading[0].strip()))
    return found


def _label(before: str) -> HeadingLabel | None:
    """The label at the end of `before`: `Overall: `, `| Style | `; None if it ends without a label, or with a sentence and a colon."""
    found = _LABEL.search(before)
    words = _WORD.findall(found["label"].lower()) if found else []
    known = _KNOWN.issuperset(words)
    if not found or len(words) > 4 or not (known or _VERBS.isdisjoint(words)):
        return None
    criterion = not words or not known or _ONE_OF_SEVERAL.search(found["label"]) is not None
    return HeadingLabel(criterion, overall=not _OVERALL.isdisjoint(words))
