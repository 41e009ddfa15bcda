"""omega, the judging weight: the votes of low-ranked models count less (appendix C.1)."""

import dataclasses
import random
from collections.abc import Mapping

from sparta.arena.reputation import Standing
from sparta.arena.rules import Reweighting


def reweight(
    standings: Mapping[str, Standing], t: int, rules: Reweighting, stream: random.Random
) -> dict[str, Standing]:
    """The standings used for judging in iteration `t`: one more model has its omega set, permanently.

    standings: at the start of iteration t >= 1. From `first_iteration` on, the model with the lowest reputation among those not yet
    reweighted gets omega = min(1, gamma (t - first_iteration)). Ties are broken by `stream`, independent of the order of the pool.
    Nothing changes before `first_iteration`, after `last_iteration`, once every model has been reweighted, or when the rule is off.
    Reputations never change.

    Call it once for each t: a second call would reweight another model.
    """
    after = dict(standings)
    waiting = [name for name, standing in standings.items() if not standing.reweighted]
    over = rules.last_iteration is not None and t > rules.last_iteration
    if not rules.enabled or t < rules.first_iteration or over or not waiting:
        return after
    least = min(standings[name].reputation for name in waiting)
    lowest = stream.choice(sorted(name for name in waiting if standings[name].reputation == least))
    weight = min(1.0, rules.gamma * (t - rules.first_iteration))
    after[lowest] = dataclasses.replace(standings[lowest], weight=weight, reweighted=True)
    return after
