"""From a jury's votes to one score a response (section 2, "Judgment Aggregation")."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Verdict(NamedTuple):
    """What a jury said about a combat.

    scores: s_i and s_j, score points. jury: number of judges counted, those of weight 0 included. uniform: their weights did not add up to
    anything positive, so each counted the same.
    """

    scores: tuple[float, float]
    jury: int
    uniform: bool


def aggregate(scores: Sequence[Sequence[float]], weights: Sequence[float]) -> Verdict | None:
    """s_i = sum_k w_k s_i^(k) / sum_k w_k, over the judges who scored both responses; None (void) where no judge did.

    scores: [2, m], the votes for the first and the second response, NaN where missing. weights: [m], w_k = omega_k R_k. Where the
    weights of those judges do not add up to a positive number, their plain mean is taken and `uniform` says so.
    Raises ValueError when the lengths differ. The sums are exact before rounding, so the order of the judges changes nothing.
    """
    first, second = scores
    seats = [
        (weight, s_i, s_j)
        for weight, s_i, s_j in zip(weights, first, second, strict=True)
        if math.isfinite(s_i) and math.isfinite(s_j)
    ]
    if not seats:
        return None
    total = math.fsum([weight for weight, _, _ in seats])
    uniform = not total > 0
    if uniform:
        total = float(len(seats))
        seats = [(1.0, s_i, s_j) for _, s_i, s_j in seats]
    return Verdict(
        (
            math.fsum([weight * s_i for weight, s_i, _ in seats]) / total,
            math.fsum([weight * s_j for weight, _, s_j in seats]) / total,
        ),
        len(seats),
        uniform,
    )
