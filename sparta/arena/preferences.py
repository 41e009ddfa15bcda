"""Which combats become preference pairs, who wins them, and why the others do not (section 2, "Preference Pairs")."""

from typing import Final, Literal, get_args

from sparta.arena.rules import Preferences

Reason = Literal["pair", "empty", "equal", "void", "tie", "margin"]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""What can become of a combat.

pair: a preference pair. empty: a response has no text. equal: both say the same. void: no judge scored both responses.
tie: the scores are the same up to `tie_tolerance`. margin: they are closer than `min_margin`. Where several hold, the first named here.
"""


def unusable(first: str, second: str) -> Reason | None:
    """Why two responses cannot be a pair whatever the votes: "empty", "equal", or None where they can. White space at the ends is ignored."""
    one, two = first.strip(), second.strip()
    if not one or not two:
        return "empty"
    return "equal" if one == two else None


def label(
    scores: tuple[float, float] | None, texts: Reason | None, rules: Preferences
) -> tuple[Literal[0, 1] | None, Reason]:
    """The winner of a combat (0: first contestant, 1: second, None: no pair) and the reason.

    scores: s_i, s_j, or None where no judge scored both, be it that none was asked. texts: what `unusable` says of the responses. The higher score wins. A tie makes no
    pair, although Algorithm 1's `else` would give it to the second model.
    """
    if texts is not None:
        return None, texts
    if scores is None:
        return None, "void"
    gap = scores[0] - scores[1]
    if abs(gap) <= rules.tie_tolerance:
        return None, "tie"
    if abs(gap) < rules.min_margin:
        return None, "margin"
    return (0 if gap > 0 else 1), "pair"
