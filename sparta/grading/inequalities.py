r"""Converts inequalities of one variable to intervals, in LaTeX: `2 \le x < 5` is `[2,5)`, `x < -2 \text{ or } x > 3` is
`(-\infty,-2)\cup(3,\infty)`."""

import re

_RELATION = re.compile(r"\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt)(?![a-z])|<=|>=|[<>≤≥]")
_AT_MOST = ("\\leqslant", "\\leq", "\\le", "<=", "≤")
_AT_LEAST = ("\\geqslant", "\\geq", "\\ge", ">=", "≥")
_LESS = ("\\lt", "<")
_OR = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*or\s*\}|\\(?:lor|vee)(?![a-z])|\bor\b", re.IGNORECASE)
_AND = re.compile(
    r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*and\s*\}|\\(?:land|wedge)(?![a-z])|\band\b", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Za-z]|\\(?:theta|alpha|beta|lambda)")
_NOISE = re.compile(r"\\[,;!: ]|\\q?quad(?![a-z])|[\s$~]+")


def as_intervals(text: str) -> str | None:
    """The intervals described by the inequalities of `text`; None if it is not inequalities."""
    parts = [_interval(part) for part in _OR.split(text)]
    if any(part is None for part in parts):
        return None
    return r"\cup".join(part for part in parts if part is not None)


def _interval(text: str) -> str | None:
    """The interval of inequalities joined by `and`: with one variable, and at most one lower and one upper bound; None otherwise."""
    variables: set[str] = set()
    below: list[str] = []
    above: list[str] = []
    for chain in _AND.split(text):
        terms = [_NOISE.sub(" ", term).strip() for term in _RELATION.split(chain)]
        signs = _RELATION.findall(chain)
        places = [place for place, term in enumerate(terms) if _VARIABLE.fullmatch(term)]
        if (
            not signs
            or len(signs) > 2
            or len(places) != 1
            or not all(terms)
            or (len(signs) == 2 and places != [1])
        ):
            return None
        variables.add(terms[places[0]])
        for place, sign in enumerate(signs):
            less, closed = sign in _AT_MOST + _LESS, sign in _AT_MOST + _AT_LEAST
            variable_first = places[0] == place
            bound = terms[place + 1] if variable_first else terms[place]
            if less == variable_first:
                above.append(bound + ("]" if closed else ")"))
            else:
                below.append(("[" if closed else "(") + bound)
    if len(variables) != 1 or len(below) > 1 or len(above) > 1:
        return None
    lower, upper = "".join(below) or r"(-\infty", "".join(above) or r"\infty)"
    return f"{lower},{upper}"
