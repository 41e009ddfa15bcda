"""What of a judge's text can hold a verdict: without marks that nobody sees, and without what is struck out or quoted in lines of its own."""

import re

# What is not seen: format characters, as they come with copied text.
_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
_WITHIN_NUMBER = re.compile(rf"(?<=[0-9])[{_INVISIBLE}]+(?=[0-9])")
_UNSEEN = re.compile(rf"[{_INVISIBLE}]+")

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_QUOTED_LINE = re.compile(r"^[ \t]*>[^\n]*$", re.MULTILINE)
_STRUCK = (
    # Within a paragraph; what is never closed is not struck out.
    re.compile(r"~~(?=\S)(?:(?!~~)(?!\n[ \t]*\n).)*+~~", re.DOTALL),
    re.compile(r"<(?P<tag>del|s|strike)>[^<>]*+</(?P=tag)>", re.IGNORECASE),
    re.compile(r"\\(?:sout|cancel|st)\{[^{}]*+\}"),
)

# LaTeX around a number.
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9.]{1,9})\}\{([0-9.]{1,9})\}")
_WRAPPED = re.compile(r"\\(?:boxed|fbox|text|textbf|mathbf|mathrm)\{([^{}\\]{1,40})\}")


def verdict_text(text: str) -> str:
    """`text` without what is struck out, quoted by `>`, commented or not seen, and without LaTeX's commands around numbers.

    A number with something unseen within it is left as no number.
    """
    text = _UNSEEN.sub("", _WITHIN_NUMBER.sub("_", text))
    text = _QUOTED_LINE.sub("", _FENCE.sub("", _uncommented(text)))
    for pattern in _STRUCK:
        text = pattern.sub(" ", text)
    return _WRAPPED.sub(r"\1", _FRACTION.sub(r"\1/\2", text))


def _uncommented(text: str) -> str:
    """`text` without the comments of HTML; one that is never closed is none."""
    kept, at = [], 0
    while (begins := text.find("<!--", at)) >= 0 and (ends := text.find("-->", begins)) >= 0:
        kept.append(text[at:begins])
        at = ends + 3
    return "".join([*kept, text[at:]])
