"""Normalises letters: other shapes than ASCII's (`Ｂ`, `Ⓑ`, `⒝`, `𝐁`), letters after a tick, letters next to scripts without spaces."""

import re
import string

_ALPHABETS = (
    # Full-width, circled and squared letters; mathematical letters (bold, italic and so on), capital letters before small ones.
    *((start, string.ascii_uppercase) for start in (0xFF21, 0x24B6, 0x1F130, 0x1F150, 0x1F170)),
    *((start, string.ascii_lowercase) for start in (0xFF41, 0x24D0)),
    *((start, string.ascii_letters) for start in range(0x1D400, 0x1D6A4, 52)),
)
_SHAPES: dict[int, str] = {
    **{start + place: letter for start, letters in _ALPHABETS for place, letter in enumerate(letters)},
    **{0x249C + place: f"({letter})" for place, letter in enumerate(string.ascii_lowercase)},
    **{0x1F110 + place: f"({letter})" for place, letter in enumerate(string.ascii_uppercase)},
    **{ord(sign): plain for sign, plain in zip("（）［］．：，。", "()[].:,.", strict=True)},
}

_UNDERLINED = re.compile(r"(?<!\w)(?P<mark>__?)(?=[^\s_])(?P<text>[^_\n]{1,200})(?P=mark)(?!\w)")
_INSIDE = re.compile(r"(?<=\{)[ \t]+|(?<![ \t])[ \t]+(?=\})")
_LATEX = re.compile(r"\\[()\[\]]|\\(?:left|right|bigl?|bigr)(?![a-z])")
_TICKED = re.compile(r"^[ \t]*(?:[✅✔☑✓👉➡➤▶]\ufe0f?[ \t]*)+(?=[(*_\[]*[A-Za-z])", re.MULTILINE)
_UNSPACED = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_SCRIPTS_MEET = re.compile(rf"(?<={_UNSPACED})(?=[A-Za-z])|(?<=[A-Za-z])(?={_UNSPACED})")


def plain_letters(text: str) -> str:
    """`text` with ASCII letters, without LaTeX delimiters and ticks before letters, and with spaces between scripts."""
    text = _INSIDE.sub("", _TICKED.sub("", _LATEX.sub("", text.translate(_SHAPES))))
    return _SCRIPTS_MEET.sub(" ", _UNDERLINED.sub(r"*\g<text>*", text))
