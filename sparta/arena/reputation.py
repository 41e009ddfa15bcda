"""R, its deviation sigma, and equation 1 (section 2, "Reputation System").

The standing of one model and the arithmetic that updates it. The order of the combats is in `replay`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparta.arena.rules import Deviation, Reputation


@dataclass(frozen=True)
class Standing:
    """The state of one model that carries over to the next iteration.

    reputation: R > 0. deviation: sigma > 0, same unit as R. changes: the last changes of R, oldest first, at most `window` of them.
    weight: omega in [0, 1]. reweighted: whether C.1 has set omega, which happens at most once per model. It is stored separately because
    C.1 may also set omega to 1.
    """

    reputation: float
    deviation: float
    changes: tuple[float, ...]
    weight: float
    reweighted: bool = False


def initial_standing(rules: Reputation) -> Standing:
    """The standing of every model in M^0: initial R and sigma, no changes yet, omega 1."""
    return Standing(rules.initial, rules.deviation.initial, (), 1.0)


def gap_factor(r_i: float, r_j: float, sigma_i: float, sigma_j: float, epsilon: float) -> float:
    """max(|Phi(z_i) - Phi(z_j)|, epsilon), z_i = (R_i - R_j)/sqrt(sigma_i^2 + sigma_j^2), z_j = -z_i (in equation 1).

    In [epsilon, 1], symmetric in the two models. At least one sigma must be positive (ZeroDivisionError otherwise); the minimum
    sigma_min ensures that both are.
    """
    z = (r_i - r_j) / math.hypot(sigma_i, sigma_j)
    # Phi(z) - Phi(-z) = erf(z / sqrt 2), without the cancellation of two values near 1/2.
    return max(abs(math.erf(z / math.sqrt(2.0))), epsilon)


def updated(
    r_i: float, r_j: float, sigma_i: float, sigma_j: float, gap: float, kappa: float, rules: Reputation
) -> float:
    """R_i after a combat with j: max(floor, R_i + kappa gap tanh(sigma_i) max(|Phi(z_i) - Phi(z_j)|, epsilon)), equation 1.

    gap: s_i - s_j, score points. For the other contestant, swap the models and negate the gap.

    The last factor is symmetric in i and j: a win over a much stronger model pays exactly as much as a win over a much weaker one, and
    between equal models the factor is epsilon. The paper's prose says that an upset pays more; equation 1 does not, and this
    implements equation 1.
    """
    factor = gap_factor(r_i, r_j, sigma_i, sigma_j, rules.epsilon)
    return max(rules.floor, r_i + kappa * gap * math.tanh(sigma_i) * factor)


def deviation_after(changes: Sequence[float], current: float, rules: Deviation) -> float:
    """sigma: max(standard deviation of the last `window` changes of R, sigma_min); `current` if there are fewer than two changes.

    changes: oldest first. current: sigma_init until the model has had two changes; later, sigma at the time the window was emptied
    (`keep_window: false`).
    """
    recent = changes[-rules.window :]
    if len(recent) < 2:
        return current
    mean = math.fsum(recent) / len(recent)
    squares = math.fsum((change - mean) ** 2 for change in recent)
    return max(math.sqrt(squares / (len(recent) - rules.ddof)), rules.minimum)
