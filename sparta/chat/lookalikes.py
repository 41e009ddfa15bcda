"""What a character reads as inside a marker, by Unicode's own properties: nothing, a letter without its ornaments, a bracket, a bar, a slash."""

import unicodedata

import regex

OPENS, CLOSES = "\ue000", "\ue001"
"""Private characters: what an angle bracket reads as that has no plainer form."""

_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Mn}\p{Me}]|(?!\p{White_Space})\p{Cc}")
"""What shows as nothing, or only on the character before it."""


def reading(text: str) -> str:
    """`text` as a marker in it would read."""
    return text.translate(_READINGS)


def places_in(text: str) -> list[int]:
    """For each character of `reading(text)` its place in `text`."""
    return [place for place, character in enumerate(text) for _ in reading(character)]


class _Readings(dict[int, str]):
    """What characters read as, by their code, looked up when they are met first."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _reads_as(chr(code))
        return found


_READINGS = _Readings()


def _reads_as(character: str) -> str:
    if " " <= character <= "~":
        return character
    if _UNSEEN.fullmatch(character):
        return ""
    plain = _UNSEEN.sub("", unicodedata.normalize("NFKD", character))
    return plain if plain != character else _shape(character)


def _shape(character: str) -> str:
    """What a character without a plainer form looks like, told by its category and its name."""
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
