"""omega, the judging weight: low-ranked models lose their say as judges (appendix C.1)."""

import dataclasses
from collections.abc import Mapping

from sparta.arena.reputation import Standing
from sparta.arena.rules import Reweighting


def reweight(standings: Mapping[str, Standing], t: int, rules: Reweighting) -> dict[str, Standing]:
    """The standings that iteration `t` judges with: one more model has its omega set, for good.

    standings: in pool order, at the start of iteration t >= 1. From `first_iteration` on, the model of lowest reputation among those not
    yet reweighted gets omega = min(1, gamma (t - first_iteration)); of several equally low, the first in pool order. Nothing happens
    before that, when every model has had its turn, or when the rule is off. Reputations are never touched.

    To be called once for each t: the result says, in `reweighted`, that the turn was taken.
    """
    after = dict(standings)
    waiting = [name for name, standing in standings.items() if not standing.reweighted]
    if not rules.enabled or t < rules.first_iteration or not waiting:
        return after
    lowest = min(waiting, key=lambda name: standings[name].reputation)
    weight = min(1.0, rules.gamma * (t - rules.first_iteration))
    after[lowest] = dataclasses.replace(standings[lowest], weight=weight, reweighted=True)
    return after
