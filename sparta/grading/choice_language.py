r"""Regular expressions for how English (and a few phrases of other languages) names a choice: cues before a name, and what may follow it.

A name is the letter of a choice, or one of the words of a verdict.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from sparta.grading.passages import ABROAD, IS_ABROAD

OPENING = r"""[*_`"'“”‘’(\[{$]"""
CLOSING = r"""[*_`"'“”‘’)\]}$]"""
TEX = r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|bf|rm)\b"
BOX = r"\\(?:boxed|fbox)\s*"

# Before a mention: cues that declare it as the answer.
_FAILS = r"\b(?:not|never|violat\w+|fail\w*|contradict\w*|break\w*|wrong|incorrect|except)\b|n['’]t\b"
_CLAUSE = rf"(?:that|which|among|from|given|in|based|with|satisfying)\s(?:(?!{_FAILS})[^.:\n]){{1,80}}?"
_CUE = rf"""\b(?:answer|choice|option|selection|response|letter|pick|verdict|decision|judge?ment|conclusion)\b[*_"'”’]*
        (?:\s+(?:choice|option|letter|here|(?:to|for)\s+(?:the|this)\s+question)\b)?(?:\s+{_CLAUSE})?[*_"'”’]*
        \s*(?:\b(?:is|was|would\s+be|should\s+be|must\s+be|remains)\b\s*:?|\b(?:is|was)(?=n['’]t\b)|[:=：>]|->|→)
    |\b(?:I|we)(?:['’](?:d|ll)|\s+(?:would|will|shall|should|must|have\s+to|therefore|thus|then|also))*
        \s+(?:choose|chose|select|pick|answer|vote\s+for|(?:would\s+)?go\s+with|say)\b:?
    |(?:(?<=[.!?\n])|\A)\s*(?:choose|select|pick)\b
    |{BOX}(?=\{{)
    |{ABROAD}(?:\s+\w+){{0,2}}?[*_]*\s*{IS_ABROAD}"""
# Weaker cues: the text after them may also be the beginning of another statement.
_HINT = r"\b(?:it|this|that)(?:\s+(?:is|must\s+be|should\s+be|would\s+be)|['’]s)\b|\b(?:therefore|thus|hence|so|leaving(?:\s+(?:us|me)\s+with)?)\b,?|(?:\A|\n)[ \t*#_]*(?:final\s+)?answer[*_]*\s[-–—](?=\s)"
_WORD_HINT = r"|\b(?:is|was|as)(?:\s+(?:considered|deemed|seen|described))?(?:\s+as)?\b"
# After these, a letter names a choice only if it has a mark.
_BEST = rf"\b(?:most\s+(?:likely|appropriate|probable)|best|final)\s(?:(?!{_FAILS})[^.:\n]){{1,80}}?\s(?:is|was|would\s+be)\b\s*:?"
_UNTIL = rf"""(?:[\s:<>]|{OPENING}|{TEX}|\b(?:the|my|correct|right|best|option|choice|letter|answer|alternative
    |definitely|clearly|therefore|thus|indeed|probably|likely|most|simply|just|actually|also|then|obviously|certainly|considered|socially)\b)*"""

# After a mention: what may follow one that counts.
_ENDS = r"\s*\Z|[ \t]*\n|[.,:;!?<\\|=]|[ \t]*[–—]|[ \t]+[-(]|[ \t]*[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_LINKS = r"because|since|as|and|but|which|whereas|although|instead|rather|or|due[ ]to|based[ ]on|given[ ]that|not[ ](?=\W*\w\b)"


@dataclass(frozen=True)
class Language:
    """The patterns for one set of names. ended, linked: the text after a name that counts, without and with a linking word."""

    names: tuple[str, ...]
    letters: bool
    name: re.Pattern[str]
    cue: re.Pattern[str]
    hint: re.Pattern[str]
    best: re.Pattern[str]
    ended: re.Pattern[str]
    linked: re.Pattern[str]


@lru_cache(maxsize=64)
def language(names: tuple[str, ...], letters: bool, things: tuple[str, ...] = ()) -> Language:
    """The patterns for `names`. things: words that form another name with a letter before them, with or without a dot: `coli` in `E. coli`."""
    flags = re.IGNORECASE | re.VERBOSE
    either = "(?:" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + ")"
    turn = rf"(?:(?:not|n['’]t)\s+{OPENING}*{either}\b{CLOSING}*,?\s*(?:but|(?:rather\s+)?it\s+is|it['’]s)\s+(?:rather\s+)?)?"
    until = rf"{_UNTIL}{turn}(?P<both>\b(?:both|either|neither)\b)?{_UNTIL}\Z"
    starts, links = (
        ("because|since", _LINKS)
        if letters
        else ("because|since|it|this|that|he|she|they", _LINKS + "|it|this|that|he|she|they|in|here")
    )
    named = rf"|\.?[ ](?:{'|'.join(map(re.escape, things))})\b" if things else ""
    alone = rf"(?!['’]\w|\.(?!(?-i:[A-Z][a-z]))\w{named})(?P<close>{CLOSING}*+)(?![\w+/&^]|-\w|:[0-9])"
    return Language(
        names=names,
        letters=letters,
        name=re.compile(rf"(?<![\w\\])(?<!\b[A-Z]\.){either}(?!\w)", flags),
        cue=re.compile(rf"(?:{_CUE}){until}", flags),
        hint=re.compile(rf"(?:{_HINT}{'' if letters else _WORD_HINT}){until}", flags),
        best=re.compile(rf"(?:{_BEST}){until}", flags),
        ended=re.compile(rf"{alone}(?:(?<={CLOSING})|(?={_ENDS}|[ \t]+(?:{starts})\b))", flags),
        linked=re.compile(rf"{alone}(?:(?<={CLOSING})|(?={_ENDS}|[ \t]+(?:{links})\b))", flags),
    )
