"""Draws the prompts of an iteration and the two contestants for each (section 2, "Match-Making System").

Planning only: no responses and no votes. Reputations are those at the start of the iteration.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from sparta.arena.rules import MatchMaking
from sparta.errors import SpartaError


def require_judges(m: int) -> None:
    """Raise SpartaError unless a pool of `m` models leaves a judge beside the two contestants (m >= 3)."""
    if m < 3:
        raise SpartaError(
            f"a pool of {m} model{'' if m == 1 else 's'} leaves no judge beside the two contestants; name at least 3 models in the pool"
        )


def draw_prompts(prompt_ids: Sequence[str], n: int, stream: random.Random) -> list[str]:
    """`n` prompts of X, without replacement, in random order (section 2, "One iteration").

    If n > |X|, whole shuffled passes over X come first, then part of another, so that the numbers of draws of any two prompts differ by
    at most one. Raises SpartaError when X is empty and n is positive, ValueError when n is negative.
    """
    if n < 0:
        raise ValueError(f"cannot draw {n} prompts")
    if n == 0:
        return []
    if not prompt_ids:
        raise SpartaError(
            f"there are no prompts to draw {n} combats from; check that the instruction data is not empty"
        )
    passes, rest = divmod(n, len(prompt_ids))
    drawn: list[str] = []
    for _ in range(passes):
        drawn += stream.sample(prompt_ids, len(prompt_ids))
    return drawn + stream.sample(prompt_ids, rest)


def match(
    reputations: Mapping[str, float], n: int, rules: MatchMaking, stream: random.Random
) -> list[tuple[str, str]]:
    """The contestants of `n` combats as (first, opponent), always two different models.

    reputations: R of every model of the pool, in pool order. The first contestant is uniform over the pool or, with
    `rules.first == "balanced"`, every model once per m combats in random order. With probability alpha the opponent is uniform over the
    others; otherwise it is uniform over the k others with the smallest |R_i - R_j|. Ties for the last of the k places are broken at
    random in each combat. k >= m-1 is plain uniform.

    Raises SpartaError when m < 3 or a reputation is not a finite number.
    """
    names = list(reputations)
    m = len(names)
    require_judges(m)
    for name, reputation in reputations.items():
        if not math.isfinite(reputation):
            raise SpartaError(
                f"the reputation of {name!r} is {reputation}, not a finite number; restore its standing"
            )
    neighbours = [_neighbours(list(reputations.values()), i, rules.k) for i in range(m)]
    firsts = _balanced(m, stream) if rules.first == "balanced" else _uniform(m, stream)
    pairs: list[tuple[str, str]] = []
    for _ in range(n):
        i = next(firsts)
        if stream.random() < rules.alpha:
            j = stream.randrange(m - 1)
            j += j >= i
        else:
            j = _nearest(*neighbours[i], rules.k, stream)
        pairs.append((names[i], names[j]))
    return pairs


def _neighbours(reputations: Sequence[float], i: int, k: int) -> tuple[list[int], list[int]]:
    """The models that are certainly among the k nearest of model i, and those tied for the remaining places."""
    others = [j for j in range(len(reputations)) if j != i]
    gaps = {j: abs(reputations[i] - reputations[j]) for j in others}
    reach = sorted(gaps.values())[min(k, len(others)) - 1]
    return [j for j in others if gaps[j] < reach], [j for j in others if gaps[j] == reach]


def _nearest(sure: Sequence[int], tied: Sequence[int], k: int, stream: random.Random) -> int:
    """One of the k nearest, uniformly.

    For a single draw, filling the k - len(sure) remaining places at random and then drawing one of the k is equivalent to drawing from
    all tied models whenever a remaining place is drawn.
    """
    place = stream.randrange(min(k, len(sure) + len(tied)))
    return sure[place] if place < len(sure) else tied[stream.randrange(len(tied))]


def _uniform(m: int, stream: random.Random) -> Iterator[int]:
    while True:
        yield stream.randrange(m)


def _balanced(m: int, stream: random.Random) -> Iterator[int]:
    while True:
        yield from stream.sample(range(m), m)
