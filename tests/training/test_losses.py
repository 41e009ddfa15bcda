"""The losses of a pair against their formulas written out in plain numbers, values and gradients to 1e-6."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.tiny_models import make_base

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


@pytest.mark.parametrize("eta", [1.0, 20.0, 1000.0])
def test_with_hard_rates_sppos_loss_is_trls_sppo_hard(eta: float, tmp_path: Path) -> None:
    """TRL's own code computes its loss from the same log-ratios."""
    import torch

    from sparta.training.losses import square_loss

    chosen, rejected, _ = tensors()
    hard = torch.tensor([(1.0, 0.0)] * len(PAIRS), dtype=torch.float64)
    loss = square_loss(chosen, rejected, hard, eta).mean()
    loss.backward()
    theirs, slopes = loss_of_trl([*zip(*PAIRS, strict=True)], eta, tmp_path)
    assert loss.item() == pytest.approx(theirs, rel=1e-12, abs=1e-6)
    assert [*chosen.grad.tolist(), *rejected.grad.tolist()] == pytest.approx(slopes, abs=1e-6)
    soft = torch.tensor([(0.9, 0.1)] * len(PAIRS), dtype=torch.float64)
    assert square_loss(chosen, rejected, soft, eta).mean().item() != pytest.approx(theirs, rel=1e-3)


def loss_of_trl(ratios: list[tuple[float, ...]], eta: float, folder: Path) -> tuple[float, list[float]]:
    """The mean loss of DPOTrainer with `sppo_hard` at beta 1/eta, and its gradient. ratios: of all chosen, then of all rejected completions.

    The model is replaced: it gives these as the log-probabilities of completions of one token, and those of the reference are 0.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    base = make_base(folder / "base")
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=DPOConfig(
            output_dir=str(folder),
            loss_type="sppo_hard",
            beta=1 / eta,
            use_cpu=True,
            bf16=False,
            report_to=[],
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trainer.precompute_ref_logps = True
    given = torch.tensor(ratios, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    rows = len(given)
    none = torch.zeros(rows // 2, dtype=torch.float64)

    def model(**_: object) -> SimpleNamespace:
        zero = torch.zeros(rows, 1)
        return SimpleNamespace(log_probs=given, entropy=zero, mean_logits=zero, is_top1=zero.bool())

    inputs = {
        "input_ids": torch.zeros(rows, 2, dtype=torch.long),
        "attention_mask": torch.ones(rows, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1]] * rows),
        "ref_chosen_logps": none,
        "ref_rejected_logps": none,
    }
    loss = trainer._compute_loss(model, inputs, return_outputs=False)
    loss.backward()
    assert given.grad is not None
    return loss.item(), given.grad.reshape(-1).tolist()


def test_a_pair_whose_sides_are_even_is_held_to_the_reference() -> None:
    import torch

    from sparta.training.losses import square_loss

    even = torch.tensor([(0.5, 0.5)])
    zero = torch.zeros(1)
    assert square_loss(zero, zero, even, 1000.0).item() == 0.0
