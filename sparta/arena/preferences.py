"""Which combats become preference pairs, who wins them, and why the others do not (section 2, "Preference Pairs")."""

from typing import Final, Literal, get_args

from sparta.arena.rules import Preferences

Reason = Literal["pair", "empty", "equal", "void", "tie", "margin"]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""The possible results of a combat. If several apply, the first in this order counts.

pair: a preference pair. empty: a response has no text. equal: the responses are equal. void: no judge scored both responses.
tie: the scores differ by at most `tie_tolerance`. margin: the scores differ by less than `min_margin`.
"""


def unusable(first: str, second: str) -> Reason | None:
    """Why two responses cannot form a pair, regardless of the votes: "empty", "equal", or None if they can.

    White space at the ends is ignored.
    """
    one, two = first.strip(), second.strip()
    if not one or not two:
        return "empty"
    return "equal" if one == two else None


def label(
    scores: tuple[float, float] | None, texts: Reason | None, rules: Preferences
) -> tuple[Literal[0, 1] | None, Reason]:
    """The winner of a combat (0: first contestant, 1: second, None: no pair) and the reason.

    scores: s_i, s_j, or None if no judge scored both responses (or no vote was requested). texts: the result of `unusable` for the two
    responses. The higher score wins. A tie makes no pair, although Algorithm 1's `else` would give it to the second model.
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
