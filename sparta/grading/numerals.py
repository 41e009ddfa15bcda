r"""Parses numbers in digits, in many formats, with their possible values.

`18`, `-3`, `minus 3`, `1,234.50`, `1.234,50`, `12,34,567`, `1 234 567`, `.5`, `3/4`, `1 1/2`, `2½`, `\frac{3}{4}`, `10^3`, `1e3`, `2 \times 10^3`, `1.5 million`.
Currencies, units and percent signs are ignored. If one of several readings is by far the likeliest, it is the value (`1.234`, `50%`,
`$1.5 million`); if another reading is as likely, there is no value (`1,5`, `1 234`, `9:30`, `\sqrt{16}`).
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from sparta.grading.number_words import SCALES

_LONGEST = 100
"""Maximum characters of a number; a longer one is a repetition loop, not a result."""
_LARGEST = 1000
"""Maximum digits of a power."""


@dataclass(frozen=True)
class Numeral:
    """start, end: the position in the text. value: None if it is ambiguous. others: other possible values."""

    start: int
    end: int
    value: Fraction | None
    others: frozenset[Fraction] = frozenset()

    def or_else(self, *others: Fraction) -> "Numeral":
        return replace(self, others=self.others | set(others))


# LaTeX and its replacements, in this order.
_LATEX = (
    (re.compile(r"\\[,!;: ]|\{,\}"), lambda match: "," if match[0] == "{,}" else ""),
    (re.compile(r"\\([$%#&])"), lambda match: match[1]),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), lambda match: "×"),
    (re.compile(r"\\(?:left|right)(?![a-z])"), lambda match: ""),
    (
        re.compile(
            r"(?:([0-9])\s{0,3})?\\[dtc]?frac\s*(?:\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}|([0-9])([0-9]))"
        ),
        lambda match: f"{match[1] + ' ' if match[1] else ''}{match[2] or match[4]}/{match[3] or match[5]}",
    ),
)
_FULL_WIDTH = str.maketrans("０１２３４５６７８９，．％／", "0123456789,.%/")

_SPACES = "\u00a0\u2009\u202f"
_GROUPS = rf"(?:[0-9]{{1,3}}(?:[ ][0-9]{{3}})+(?![0-9])|[0-9]+(?:[,.'’_{_SPACES}][0-9]+)*+)"
_VULGAR = {
    sign: Fraction(above, below)
    for sign, (above, below) in zip(
        "½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞",
        [
            (1, 2),
            (1, 4),
            (3, 4),
            (1, 3),
            (2, 3),
            (1, 5),
            (2, 5),
            (3, 5),
            (4, 5),
            (1, 6),
            (5, 6),
            (1, 8),
            (3, 8),
            (5, 8),
            (7, 8),
        ],
        strict=True,
    )
}
_NUMERAL = re.compile(
    rf"""(?<![\w.^])(?:(?P<sign>[-−])(?=[$€£¥₹.0-9½¼¾⅓⅔]))?(?:(?:[$€£¥₹₩₽]|\bRs\.?[ ]?)(?P<late>[-−])?)?
    (?:(?P<mixed>[0-9]+)[ ]+(?P<up>[0-9]+)[ ]*/[ ]*(?P<down>[0-9]+)
    |(?P<whole>[0-9]*)[ ]?(?P<vulgar>[{"".join(_VULGAR)}])
    |(?P<digits>\.[0-9]+|{_GROUPS}))""",
    re.VERBOSE,
)

# What can follow the digits, in this order.
_OVER = re.compile(rf"[ ]*/[ ]*(?P<under>{_GROUPS})")
_TIMES_TEN = re.compile(r"[ ]?[×x*·][ ]?10(?=[\^*⁰¹²³⁴⁵⁶⁷⁸⁹⁻])")
_POWER = re.compile(
    r"(?:[ ]?\^[ ]?|\*\*(?=[-{(]?[0-9]))[{(]?(?P<plain>-?[0-9]{1,4})[)}]?|(?P<raised>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4})|[eE](?P<exponent>[+-]?[0-9]{1,4})(?![\w^]|\.[0-9])"
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SCALE = re.compile(
    rf"(?i:[ -]?(?P<word>{'|'.join(SCALES)})s?\b)|(?P<thousand>[kK])\b|(?P<unclear>[MB]|mn|bn)\b"
)
_DOZEN = re.compile(r"[ ]dozens?\b", re.IGNORECASE)
_PERCENT = re.compile(r"[ ]?%|[ ]per\s?cent\b", re.IGNORECASE)
_GOES_ON = re.compile(r"(?::[0-9]+)+|[ ]?\^|[ ]*/[ ]*[0-9]")
_AND_MORE = re.compile(r"[ ](?:and[ ])?[0-9]")

# What can stand before them.
_MINUEND = re.compile(r"[0-9)\]}%][ \t]{0,9}\Z")
_MINUS = re.compile(
    r"(?:\bnegative|(?:\A|[=:(\[{*$]|\b(?:is|was|are|be|equals?|to|of|as|at|by|or|answer|result|value))[\s*_$({]{0,9}\bminus|=[ ]?[-−])\s+[$€£]?\Z",
    re.IGNORECASE,
)
_FUNCTION = re.compile(
    r"(?:√\(?|\\(?:sqrt|[dt]?binom|log|ln|sin|cos|tan|sum|prod|int|gcd|lcm|max|min|pm|mp)(?![a-z])(?:\[[0-9]{1,3}\]|_\{?[0-9]{1,3}\}?)?\s{0,3}[{(]?(?:[0-9]{1,9}\}\{)?)\Z"
)


def plain(text: str) -> str:
    """`text` with LaTeX numbers and full-width digits converted to plain text."""
    text = text.translate(_FULL_WIDTH)
    for pattern, written in _LATEX:
        text = pattern.sub(written, text)
    return text


def numerals_in(text: str) -> list[Numeral]:
    """The numerals of `text` in order. text: converted by `plain`."""
    found: list[Numeral] = []
    for match in _NUMERAL.finditer(text):
        if len(match[0]) > _LONGEST or (found and match.start() < found[-1].end):
            continue
        before = text[max(0, match.start() - _LONGEST) : match.start()]
        numeral = _whole(text, _of_digits(match), bold=before.endswith("**"))
        if (match["sign"] and not _MINUEND.search(before)) or match["late"] or _MINUS.search(before):
            numeral = negative(numeral)
        found.append(replace(numeral, value=None) if _FUNCTION.search(before) else numeral)
    return found


def negative(numeral: Numeral) -> Numeral:
    value = None if numeral.value is None else -numeral.value
    return replace(numeral, value=value, others=frozenset(-other for other in numeral.others))


def _of_digits(match: re.Match[str]) -> Numeral:
    """The value of the digits, without any suffix."""
    if match["vulgar"]:
        return Numeral(match.start(), match.end(), int(match["whole"] or 0) + _VULGAR[match["vulgar"]])
    if match["mixed"]:
        down = int(match["down"])
        value = int(match["mixed"]) + Fraction(int(match["up"]), down) if down else None
        return Numeral(match.start(), match.end(), value)
    return replace(_grouped(match["digits"]), start=match.start(), end=match.end())


def _grouped(digits: str) -> Numeral:
    """The value of digits with separators: of thousands, of decimals, or neither."""
    parts = re.split(r"[^0-9]", digits)
    marks = re.sub(r"[0-9]", "", digits)
    decimal = Fraction(f"{''.join(parts[:-1])}.{parts[-1]}") if len(parts) > 1 else None
    joined = Fraction("".join(parts))
    value, others = None, set[Fraction]()
    if not marks or digits.startswith("."):
        value = joined if not marks else decimal
    elif len(set(marks)) == 1 and _are_thousands(parts, marks) and marks not in (".", " "):
        value = joined
        # Three zeros after a comma are thousands, not decimals.
        others = {decimal} if marks == "," and decimal is not None and parts[1] != "000" else set()
    elif marks == "." or (marks == "," and parts[0] == "0"):
        value = decimal
        others = {joined} if _are_thousands(parts, marks) else set()
    elif (
        marks[-1] in ".,"
        and marks[-1] not in marks[:-1]
        and len(set(marks)) == 2
        and _are_thousands(parts[:-1], marks)
    ):
        value = decimal
    return Numeral(0, 0, value, frozenset(others))


def _are_thousands(parts: list[str], marks: str) -> bool:
    """Whether the separators are at the positions of thousands, or of Indian lakhs and crores (commas only)."""
    first, *rest = parts
    if not rest or first.startswith("0") or len(first) > 3:
        return False
    indian = (
        marks[0] == ","
        and len(first) < 3
        and len(rest) > 1
        and [len(part) for part in rest] == [2] * (len(rest) - 1) + [3]
    )
    return indian or all(len(part) == 3 for part in rest)


def _whole(text: str, numeral: Numeral, bold: bool) -> Numeral:
    """The numeral with the suffix after its digits. bold: two asterisks after it are markdown, not a power."""
    if over := _OVER.match(text, numeral.end):
        under = _grouped(over["under"]).value
        value = numeral.value / under if numeral.value is not None and under else None
        numeral = Numeral(numeral.start, over.end(), value)
    ten = _TIMES_TEN.match(text, numeral.end)
    power = _POWER.match(text, ten.end() if ten else numeral.end)
    if power and not (bold and power[0].startswith("*")):
        base = Fraction(10) if ten or power["exponent"] else numeral.value
        factor = numeral.value if ten or power["exponent"] else Fraction(1)
        raised = _raised(base, int(power["plain"] or power["exponent"] or power["raised"].translate(_RAISED)))
        value = None if factor is None or raised is None else factor * raised
        numeral = Numeral(numeral.start, power.end(), value)
    if scale := _SCALE.match(text, numeral.end):
        numeral = _scaled(text, numeral, scale)
    if numeral.value is not None and _DOZEN.match(text, numeral.end):
        numeral = numeral.or_else(12 * numeral.value)
    if numeral.value is not None and _PERCENT.match(text, numeral.end):
        numeral = numeral.or_else(numeral.value / 100)
    more = _GOES_ON.match(text, numeral.end)
    return replace(numeral, end=more.end(), value=None) if more else numeral


def _scaled(text: str, numeral: Numeral, scale: re.Match[str]) -> Numeral:
    factor = 1000 if scale["thousand"] else SCALES.get((scale["word"] or "").lower())
    more = _AND_MORE.match(text, scale.end())
    value = None if numeral.value is None or factor is None or more else numeral.value * factor
    others = () if numeral.value is None else (numeral.value,)
    return Numeral(numeral.start, scale.end(), value).or_else(*others)


def _raised(base: Fraction | None, exponent: int) -> Fraction | None:
    """`base` to the power of `exponent`; None if it is undefined or too long."""
    if base is None or (not base and exponent <= 0):
        return None
    digits = max(len(str(base.numerator)), len(str(base.denominator))) * abs(exponent)
    return None if digits > _LARGEST else base**exponent
