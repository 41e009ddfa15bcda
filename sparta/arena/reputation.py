"""R, its deviation sigma, and equation 1 (section 2, "Reputation System").

One model's standing and the arithmetic that moves it. The order of combats and whose turn it is are in `replay`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparta.arena.rules import Deviation, Reputation


@dataclass(frozen=True)
class Standing:
    """What carries over from one iteration to the next about one model.

    reputation: R > 0. deviation: sigma > 0, same unit as R. changes: the last changes of R, oldest first, at most `window` of them.
    weight: omega in [0, 1]. reweighted: whether omega was set by C.1, which happens once in a model's life; the weight alone
    cannot tell, since C.1 may also set 1.
    """

    reputation: float
    deviation: float
    changes: tuple[float, ...]
    weight: float
    reweighted: bool = False


def initial_standing(rules: Reputation) -> Standing:
    """The standing of every model in M^0: R and sigma at their initial values, no changes yet, omega 1."""
    return Standing(rules.initial, rules.deviation.initial, (), 1.0)


def gap_factor(r_i: float, r_j: float, sigma_i: float, sigma_j: float, epsilon: float) -> float:
    """max(|Phi(z_i) - Phi(z_j)|, epsilon), z_i = (R_i - R_j)/sqrt(sigma_i^2 + sigma_j^2), z_j = -z_i (in equation 1).

    In [epsilon, 1], symmetric in the two models. At least one sigma must be positive (ZeroDivisionError otherwise; the floor
    sigma_min keeps both so).
    """
    z = (r_i - r_j) / math.hypot(sigma_i, sigma_j)
    # Phi(z) - Phi(-z) = erf(z / sqrt 2), without the cancellation of two values near 1/2.
    return max(abs(math.erf(z / math.sqrt(2.0))), epsilon)


def updated(
    r_i: float, r_j: float, sigma_i: float, sigma_j: float, gap: float, kappa: float, rules: Reputation
) -> float:
    """R_i after a combat with j: max(floor, R_i + kappa gap tanh(sigma_i) max(|Phi(z_i) - Phi(z_j)|, epsilon)), equation 1.

    gap: s_i - s_j, score points. For the other contestant, swap the models and negate the gap.

    The last factor is symmetric in i and j: beating a much stronger model pays exactly what beating a much weaker one does, and equals
    trade only epsilon. The paper's prose promises more for an upset; the equation does not give it, and the equation is what is here.
    """
    factor = gap_factor(r_i, r_j, sigma_i, sigma_j, rules.epsilon)
    return max(rules.floor, r_i + kappa * gap * math.tanh(sigma_i) * factor)


def deviation_after(changes: Sequence[float], current: float, rules: Deviation) -> float:
    """sigma: max(standard deviation of the last `window` changes of R, sigma_min); `current` with fewer than two changes.

    changes: oldest first. `current` is sigma_init until a model has ever had two changes, and later whatever sigma was
    when the window was emptied (`keep_window: false`).
    """
    recent = changes[-rules.window :]
    if len(recent) < 2:
        return current
    mean = math.fsum(recent) / len(recent)
    squares = math.fsum((change - mean) ** 2 for change in recent)
    return max(math.sqrt(squares / (len(recent) - rules.ddof)), rules.minimum)
