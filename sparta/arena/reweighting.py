"""omega, the judging weight: low-ranked models lose their say as judges (appendix C.1)."""

import dataclasses
import random
from collections.abc import Mapping

from sparta.arena.reputation import Standing
from sparta.arena.rules import Reweighting


def reweight(
    standings: Mapping[str, Standing], t: int, rules: Reweighting, stream: random.Random
) -> dict[str, Standing]:
    """The standings that iteration `t` judges with: one more model has its omega set, for good.

    standings: at the start of iteration t >= 1. From `first_iteration` on, the model of lowest reputation among those not yet reweighted
    gets omega = min(1, gamma (t - first_iteration)); of several equally low, one drawn from `stream`, whatever the order of the pool.
    Nothing happens before that, after `last_iteration`, when every model has had its turn, or when the rule is off. Reputations are never
    touched.

    To be called once for each t: the result says, in `reweighted`, that the turn was taken.
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
