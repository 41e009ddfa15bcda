"""Elo ratings of a few judgements that were compared with each other, in both orders (Meta-Rewarding). Pure: no files.

A rating is 400 log10 of a strength p. Strengths are those under which the comparisons are most likely, where i beats j with probability
p_i / (p_i + p_j) (Bradley-Terry), and each has drawn once with an imaginary one of strength 1, so that one that always won has a rating too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ITERATIONS, PRECISION = 10_000, 1e-12


@dataclass(frozen=True)
class Win:
    """Judgement `winner` was found better than `loser`. shown_first: whether it stood before the other."""

    winner: int
    loser: int
    shown_first: bool


def position_weights(wins: Sequence[Win]) -> tuple[float, float]:
    """What a win of the one shown first, and of the one shown second, counts: (w2, w1) / (w1 + w2) for w1 and w2 wins.

    So a judge that prefers a place says little by choosing it, and one that always chooses the same place says nothing.
    """
    first = sum(win.shown_first for win in wins)
    return ((len(wins) - first) / len(wins), first / len(wins)) if wins else (0.0, 0.0)


def ratings(count: int, wins: Sequence[Win], weights: tuple[float, float]) -> list[float]:
    """The Elo rating of each of `count` judgements; 0 where nothing is known of one. weights: of a win shown first, and shown second."""
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
