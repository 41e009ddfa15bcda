"""Text of models and users made harmless inside a prompt: delimiters, role markers and invisible characters are neutralised."""

import re
from collections.abc import Sequence
from functools import cache

JUDGING_DELIMITERS = ("question", "response")
GRADING_DELIMITERS = (*JUDGING_DELIMITERS, "reference")
"""What stands in angle brackets around the texts of a prompt. A judge prompt has no reference, so one in its texts is left as it is."""

_HIDDEN = (
    r"\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef"
)
_INVISIBLE = rf"[\s{_HIDDEN}]*"
"""Space, and characters that show as nothing: what somebody could put between the letters of a delimiter."""


def _spelled(word: str) -> str:
    return _INVISIBLE.join(map(re.escape, word))


@cache
def _delimiting(words: tuple[str, ...]) -> re.Pattern[str]:
    """What would read as the beginning or end of one of these delimiters."""
    spelled = "|".join(map(_spelled, words))
    return re.compile(rf"<{_INVISIBLE}(?:/{_INVISIBLE})*(?:{spelled})(?![\w-])[^<>\n]*>?", re.IGNORECASE)


_BAR, _SLASH = r"[|\uff5c]", rf"(?:/{_INVISIBLE})?"
_ROLE_MARKERS = re.compile(
    rf"<{_INVISIBLE}{_BAR}[^<>|\uff5c]{{1,48}}{_BAR}{_INVISIBLE}>"
    rf"|\[{_INVISIBLE}{_SLASH}{_spelled('INST')}{_INVISIBLE}\]"
    rf"|<{_INVISIBLE}<{_INVISIBLE}{_SLASH}{_spelled('SYS')}{_INVISIBLE}>{_INVISIBLE}>"
    rf"|<{_INVISIBLE}(?:{_spelled('start_of_turn')}|{_spelled('end_of_turn')}){_INVISIBLE}>"
    rf"|<[{_HIDDEN}]*(?:/[{_HIDDEN}]*)?s[{_HIDDEN}]*>"
    # Any word in capitals: [SYSTEM_PROMPT], [TOOL_CALLS]. A [NOTE] loses its brackets too, which says the same to a judge.
    rf"|\[{_INVISIBLE}{_SLASH}(?-i:[A-Z](?:[{_HIDDEN}]*[A-Z_]){{2,}}){_INVISIBLE}\]",
    re.IGNORECASE,
)
_ROUND = str.maketrans("<>[]", "()()")


def neutralise(
    text: str, special_tokens: Sequence[str] = (), delimiters: tuple[str, ...] = JUDGING_DELIMITERS
) -> str:
    """`text` with every delimiter, role marker and special token turned into plain words.

    Angle and square brackets of a match become round ones (`</response>` reads `(/response)`); a special
    token without brackets is split by a space, one of a single character is left out. Nothing in the result
    is one of `delimiters` or of `special_tokens`.
    """
    exact = [re.escape(token) for token in sorted(special_tokens, key=len, reverse=True) if token.strip()]
    patterns = [_delimiting(delimiters), _ROLE_MARKERS, *([re.compile("|".join(exact))] if exact else [])]
    while True:
        before = text
        for pattern in patterns:
            text = pattern.sub(_plain, text)
        if text == before:
            return text


def _plain(match: re.Match[str]) -> str:
    words = match[0].translate(_ROUND)
    if words != match[0]:
        return words
    core = words.strip()
    return words.replace(core, f"{core[0]} {core[1:]}" if len(core) > 1 else "")
