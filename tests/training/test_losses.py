"""The losses of a pair against their formulas written out in plain numbers, values and gradients to 1e-6."""

import math

import pytest

PAIRS = [(0.0, 0.0), (0.3, -0.2), (-1.5, 2.0), (4.0, -3.0)]
RATES = [(1.0, 0.0), (0.5, 0.5), (0.8, 0.35), (0.9, 0.1)]


def tensors(wide: bool = True):  # type: ignore[no-untyped-def]
    import torch

    kind = torch.float64 if wide else torch.float32
    chosen, rejected = (
        torch.tensor(side, dtype=kind, requires_grad=True) for side in zip(*PAIRS, strict=True)
    )
    return chosen, rejected, torch.tensor(RATES, dtype=kind)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_spins_loss_is_log_one_plus_exp_of_minus_beta_times_the_gap(beta: float) -> None:
    from sparta.training.losses import sigmoid_loss

    chosen, rejected, _ = tensors()
    loss = sigmoid_loss(chosen, rejected, beta)
    assert loss.tolist() == pytest.approx(
        [math.log(1 + math.exp(-beta * (c - r))) for c, r in PAIRS], abs=1e-6
    )
    loss.sum().backward()
    slopes = [-beta / (1 + math.exp(beta * (c - r))) for c, r in PAIRS]
    assert chosen.grad.tolist() == pytest.approx(slopes, abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx([-slope for slope in slopes], abs=1e-6)


@pytest.mark.parametrize("eta", [1.0, 10.0])
def test_sppos_loss_draws_each_side_to_its_own_rate(eta: float) -> None:
    from sparta.training.losses import square_loss

    chosen, rejected, rates = tensors()
    loss = square_loss(chosen, rejected, rates, eta)
    gaps = [(c - eta * (p - 0.5), r - eta * (q - 0.5)) for (c, r), (p, q) in zip(PAIRS, RATES, strict=True)]
    assert loss.tolist() == pytest.approx([one**2 + two**2 for one, two in gaps], abs=1e-6)
    loss.sum().backward()
    assert chosen.grad.tolist() == pytest.approx([2 * one for one, _ in gaps], abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx([2 * two for _, two in gaps], abs=1e-6)


def test_with_hard_rates_sppos_loss_is_what_trl_computes() -> None:
    """As `sppo_hard` in trl.trainer.dpo_trainer has it, with beta 1/eta."""
    import torch

    from sparta.training.losses import square_loss

    chosen, rejected, _ = tensors()
    beta = 0.05
    trl = (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
    hard = torch.tensor([(1.0, 0.0)] * len(PAIRS), dtype=torch.float64)
    assert square_loss(chosen, rejected, hard, 1 / beta).tolist() == pytest.approx(trl.tolist(), abs=1e-6)


def test_a_pair_whose_sides_are_even_is_held_to_the_reference() -> None:
    import torch

    from sparta.training.losses import square_loss

    even = torch.tensor([(0.5, 0.5)])
    zero = torch.zeros(1)
    assert square_loss(zero, zero, even, 1000.0).item() == 0.0
