"""Makes text of models and users harmless inside a prompt: neutralises delimiters, role markers and thinking tags, disguised ones too.

Patterns are matched against the text as it looks (see lookalikes.py): without invisible characters, and with look-alikes of brackets,
bars and slashes replaced. Matches are then changed in the original text; everything else stays as it is.
"""

import re
from collections.abc import Sequence
from functools import cache

from sparta.chat.lookalikes import CLOSES, OPENS, places_in, reading

JUDGING_DELIMITERS = ("question", "response")
GRADING_DELIMITERS = (*JUDGING_DELIMITERS, "reference")
"""The tags around the texts of a prompt. A judge prompt has no reference, so a reference tag in its texts is left as it is."""

_OPEN, _CLOSE = f"[<{OPENS}]", f"[>{CLOSES}]"


def _spelled(word: str) -> str:
    return r"\s*".join(map(re.escape, word))


@cache
def _delimiting(words: tuple[str, ...]) -> re.Pattern[str]:
    """Matches anything that reads as an opening or closing tag of one of these delimiters."""
    spelled = "|".join(map(_spelled, words))
    inside = rf"[^<>{OPENS}{CLOSES}\n]*"
    return re.compile(rf"{_OPEN}\s*(?:/\s*)*(?:{spelled})(?![\w-]){inside}{_CLOSE}?", re.IGNORECASE)


_SLASH = r"(?:/\s*)?"
_MARKERS = re.compile(
    rf"{_OPEN}\s*\|[^<>|{OPENS}{CLOSES}]{{1,48}}\|\s*{_CLOSE}"
    rf"|{_OPEN}\s*{_SLASH}(?:seed\s*:\s*)?(?:{'|'.join(map(_spelled, ('thinking', 'think', 'thought', 'reasoning')))})\s*{_CLOSE}"
    rf"|{_OPEN}\s*(?:{_spelled('start_of_turn')}|{_spelled('end_of_turn')})\s*{_CLOSE}"
    rf"|\[\s*{_SLASH}{_spelled('INST')}\s*\]"
    rf"|<\s*<\s*{_SLASH}{_spelled('SYS')}\s*>\s*>"
    r"|<(?:/)?s>"
    # Any word in capitals: [SYSTEM_PROMPT], [TOOL_CALLS]. A [NOTE] also becomes (NOTE), which means the same to a judge.
    rf"|\[\s*{_SLASH}(?-i:[A-Z][A-Z_]{{2,}})\s*\]",
    re.IGNORECASE,
)
_ROUND = str.maketrans(f"<[{OPENS}>]{CLOSES}", "((()))")


def neutralise(
    text: str, special_tokens: Sequence[str] = (), delimiters: tuple[str, ...] = JUDGING_DELIMITERS
) -> str:
    """`text` with every delimiter, role marker, thinking tag and special token turned into plain text.

    Angle and square brackets of a match become round ones (`</response>` becomes `(/response)`). A special token without brackets is
    split by a space; one of a single character is removed. The result contains none of `delimiters` and `special_tokens`.
    """
    tokens = [re.escape(token) for token in sorted(special_tokens, key=len, reverse=True) if token.strip()]
    exact = re.compile("|".join(tokens)) if tokens else None
    while True:
        before = text
        text = _rounded(text, (_delimiting(delimiters), _MARKERS))
        if exact is not None:
            text = exact.sub(_plain, text)
        if text == before:
            return text


def _rounded(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """`text` with round brackets in everything that reads like one of `patterns`."""
    read = reading(text)
    spans = [match.span() for pattern in patterns for match in pattern.finditer(read)]
    if not spans:
        return text
    characters, places = list(text), places_in(text)
    for start, end in spans:
        for at in range(start, end):
            if (bracket := read[at].translate(_ROUND)) != read[at]:
                characters[places[at]] = bracket
    return "".join(characters)


def _plain(match: re.Match[str]) -> str:
    words = match[0].translate(_ROUND)
    if words != match[0]:
        return words
    core = words.strip()
    return words.replace(core, f"{core[0]} {core[1:]}" if len(core) > 1 else "")
