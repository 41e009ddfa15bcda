"""Aggregates a jury's votes into one score per response (section 2, "Judgment Aggregation")."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Verdict(NamedTuple):
    """A jury's aggregated vote on a combat.

    scores: s_i and s_j, score points. jury: number of judges counted, including those of weight 0. uniform: the judges' weights did not
    sum to a positive number, so all judges counted the same.
    """

    scores: tuple[float, float]
    jury: int
    uniform: bool


def aggregate(scores: Sequence[Sequence[float]], weights: Sequence[float]) -> Verdict | None:
    """s_i = sum_k w_k s_i^(k) / sum_k w_k, over the judges who scored both responses; None (void) if no judge did.

    scores: [2, m], the votes for the first and the second response, NaN where missing. weights: [m], w_k = omega_k R_k. If the weights
    of these judges do not sum to a positive number, the result is the unweighted mean and `uniform` is true.
    Raises ValueError when the lengths differ. The sums are exact before rounding, so the result does not depend on the order of the judges.
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
