"""Elo ratings of a few judgements, from pairwise comparisons in both orders (Meta-Rewarding). Pure: no files.

A rating is 400 log10 of a strength p. The strengths maximise the likelihood of the comparisons, where i beats j with probability p_i / (p_i + p_j)
(Bradley-Terry). Each judgement also has one draw against a virtual one of strength 1, which keeps the ratings finite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ITERATIONS, PRECISION = 10_000, 1e-12


@dataclass(frozen=True)
class Win:
    """Judgement `winner` was preferred to `loser`. shown_first: whether the judge saw it first."""

    winner: int
    loser: int
    shown_first: bool


def position_weights(wins: Sequence[Win]) -> tuple[float, float]:
    """Weights of wins shown first and shown second: (w2, w1) / (w1 + w2) for w1 and w2 such wins.

    This corrects position bias: wins in a judge's preferred position count less, and count nothing if it always chooses that position.
    """
    first = sum(win.shown_first for win in wins)
    return ((len(wins) - first) / len(wins), first / len(wins)) if wins else (0.0, 0.0)


def ratings(count: int, wins: Sequence[Win], weights: tuple[float, float]) -> list[float]:
    """The Elo ratings of `count` judgements; 0 for one that was never compared. weights: of wins shown first and shown second."""
    won = [[0.0] * count for _ in range(count)]
    for win in wins:
        won[win.winner][win.loser] += weights[0] if win.shown_first else weights[1]
    strengths = [1.0] * count
    for _ in range(ITERATIONS):
        before = list(strengths)
        for i in range(count):
            score = sum(won[i]) + 0.5
            against = sum(
                (won[i][j] + won[j][i]) / (strengths[i] + strengths[j]) for j in range(count) if j != i
            )
            strengths[i] = score / (against + 1.0 / (strengths[i] + 1.0))
        if max(abs(math.log(new / old)) for new, old in zip(strengths, before, strict=True)) < PRECISION:
            break
    return [400.0 * math.log10(strength) for strength in strengths]
