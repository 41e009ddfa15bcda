"""Maps characters to what they look like inside a marker, by Unicode properties: nothing, a letter without diacritics, a bracket, bar or slash."""

import unicodedata

import regex

OPENS, CLOSES = "\ue000", "\ue001"
"""Private characters that stand for an angle bracket without a compatibility decomposition."""

_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Mn}\p{Me}]|(?!\p{White_Space})\p{Cc}")
"""Characters that show nothing, or only combine with the character before them."""


def reading(text: str) -> str:
    """`text` with each character replaced by what it looks like."""
    return text.translate(_READINGS)


def places_in(text: str) -> list[int]:
    """For each character of `reading(text)`, its index in `text`."""
    return [place for place, character in enumerate(text) for _ in reading(character)]


class _Readings(dict[int, str]):
    """Character code -> what the character looks like, computed at first use."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _reads_as(chr(code))
        return found


_READINGS = _Readings()


def _reads_as(character: str) -> str:
    if " " <= character <= "~":
        return character
    if _INVISIBLE.fullmatch(character):
        return ""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKD", character))
    return plain if plain != character else _shape(character)


def _shape(character: str) -> str:
    """What a character without a decomposition looks like, by its category and name."""
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    words = name.split()
    if name.endswith("DENTAL CLICK"):
        return "|"
    if category in ("Lo", "Lu", "Ll"):
        return character
    if name.startswith("MODIFIER LETTER") and words[-1] == "ARROWHEAD":
        return {"LEFT": OPENS, "RIGHT": CLOSES}.get(words[-2], character)
    if "ANGLE" in words:
        return {"Ps": OPENS, "Pi": OPENS, "Pe": CLOSES, "Pf": CLOSES}.get(category, character)
    if name.endswith((" VERTICAL", "VERTICAL BAR", "VERTICAL LINE")) or name == "DIVIDES":
        return "|"
    if name.endswith(("SLASH", "SOLIDUS")) and "REVERSE" not in words:
        return "/"
    return character
