"""Losses of a preference pair from the log-ratios of its two sides, log p(side) - log p_ref(side), in nats. Torch tensors in, one loss per pair out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def sigmoid_loss(chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
    """-log sigmoid(beta (chosen - rejected)): DPO, and also SPIN, where chosen is the gold answer and the reference the previous iterate. All of shape [pairs]."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))


def square_loss(chosen: "Tensor", rejected: "Tensor", rates: "Tensor", eta: float) -> "Tensor":
    """(chosen - eta (P_chosen - 1/2))^2 + (rejected - eta (P_rejected - 1/2))^2: SPPO, with the win rates of each pair.

    chosen, rejected: log-ratios, [pairs]. rates: [pairs, 2], the probability that each side beats a response of the reference. eta: 1/beta' of the paper.
    With rates of 1 and 0 it equals TRL's `sppo_hard` at beta 1/eta.
    """
    targets = eta * (rates - 0.5)
    return (chosen - targets[:, 0]) ** 2 + (rejected - targets[:, 1]) ** 2
