"""Reduces a judge's text to the part that can hold a verdict: removes invisible characters, struck-out text and quoted lines."""

import re

# Format characters, which copied text often contains.
_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
_WITHIN_NUMBER = re.compile(rf"(?<=[0-9])[{_INVISIBLE}]+(?=[0-9])")
_INVISIBLE_RUN = re.compile(rf"[{_INVISIBLE}]+")

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_QUOTED_LINE = re.compile(r"^[ \t]*>[^\n]*$", re.MULTILINE)
_STRUCK = (
    # Within one paragraph; without a closing ~~ nothing is struck out.
    re.compile(r"~~(?=\S)(?:(?!~~)(?!\n[ \t]*\n).)*+~~", re.DOTALL),
    re.compile(r"<(?P<tag>del|s|strike)>[^<>]*+</(?P=tag)>", re.IGNORECASE),
    re.compile(r"\\(?:sout|cancel|st)\{[^{}]*+\}"),
)

# LaTeX around a number.
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9.]{1,9})\}\{([0-9.]{1,9})\}")
_WRAPPED = re.compile(r"\\(?:boxed|fbox|text|textbf|mathbf|mathrm)\{([^{}\\]{1,40})\}")


def verdict_text(text: str) -> str:
    """`text` without struck-out text, lines quoted by `>`, comments, invisible characters, and LaTeX commands around numbers.

    Digits with an invisible character between them are joined by `_`, so that they do not read as a number.
    """
    text = _INVISIBLE_RUN.sub("", _WITHIN_NUMBER.sub("_", text))
    text = _QUOTED_LINE.sub("", _FENCE.sub("", _uncommented(text)))
    for pattern in _STRUCK:
        text = pattern.sub(" ", text)
    return _WRAPPED.sub(r"\1", _FRACTION.sub(r"\1/\2", text))


def _uncommented(text: str) -> str:
    """`text` without HTML comments; an unclosed comment is kept."""
    kept, at = [], 0
    while (begins := text.find("<!--", at)) >= 0 and (ends := text.find("-->", begins)) >= 0:
        kept.append(text[at:begins])
        at = ends + 3
    return "".join([*kept, text[at:]])
