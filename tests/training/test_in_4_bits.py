"""A base in 4 bits and moments in 8, for real on a CPU: `make cards` runs these where bitsandbytes lies in a folder of its own."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.engine_contract import GREEDY, answers, ref, request, settings
from support.tiny_adapters import Member

from sparta.engines.hf.engine import HfEngine
from sparta.pool.memory_account import NF4_BYTES, describe
from sparta.training import dpo, preemption
from sparta.training.job import SftJob, TrainingJob, silent
from sparta.training.loading import load_base
from sparta.training.lora_stack import can_stack
from sparta.training.sft import train_sft

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: `make cards` has it",
)


def weights(job: TrainingJob | SftJob) -> dict[str, torch.Tensor]:
    return load_file(job.out / "adapter_model.safetensors")


def apart(one: TrainingJob, other: TrainingJob) -> float:
    """The largest difference of a weight of their adapters."""
    mine, theirs = weights(one), weights(other)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def test_all_linear_layers_but_the_output_are_in_4_bits_and_counted_as_such(
    make_job: Callable[..., TrainingJob],
) -> None:
    job = make_job(quantize="nf4")
    base = load_base(job, "cpu", "float32")
    held = [module for module in base.modules() if type(module).__name__ == "Linear4bit"]
    size = describe(job.base, quantize="nf4")
    assert size.in_4_bits == sum(module.in_features * module.out_features for module in held) > 0
    assert size.largest == max(module.in_features * module.out_features for module in held)
    assert sum(module.weight.numel() for module in held) == size.in_4_bits / 2
    for module in held:
        state = module.weight.quant_state
        assert state.quant_type == "nf4" and state.nested
        scales = state.absmax.numel() + 4 * state.state2.absmax.numel()
        # A small matrix has one scale of scales for less than 256 of them.
        counted = (NF4_BYTES - 0.5) * module.in_features * module.out_features
        assert scales == pytest.approx(counted, abs=4)
    assert describe(job.base).in_4_bits == 0


def test_the_adapters_of_dpo_lie_on_4_bits_as_peft_puts_them_there(
    make_job: Callable[..., TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(dpo, "can_stack", lambda *given: tried.append(can_stack(*given)) or False)
    one = make_job("by peft", quantize="nf4")
    dpo.train_dpo(one)
    monkeypatch.undo()
    stacked, full = make_job("stacked", quantize="nf4"), make_job("full")
    first = dpo.train_dpo(stacked)
    dpo.train_dpo(full)
    assert tried == [True]
    assert first.first_loss == pytest.approx(0.6931, abs=1e-4), "the reference is in 4 bits as well"
    assert apart(stacked, one) < 1e-5 < 1e-3 < apart(stacked, full)


def test_members_together_and_checkpointed_layers_change_nothing(
    make_job: Callable[..., TrainingJob],
) -> None:
    alone, again = make_job("alone", quantize="nf4"), make_job("again", quantize="nf4")
    checkpointed = make_job("lean", {"gradient_checkpointing": True}, quantize="nf4")
    dpo.train_dpo(alone)
    dpo.train_dpo(checkpointed)
    pair = [again, make_job("beside", quantize="nf4", seed=5)]
    dpo.train_members(pair, 2, lambda _: silent, lambda *_: None)
    assert apart(alone, again) == apart(alone, checkpointed) == 0


def test_an_expert_learns_in_single_precision_on_a_base_in_4_bits(
    make_expert: Callable[..., SftJob],
) -> None:
    job = make_expert(quantize="nf4", settings={"epochs": 1})
    report = train_sft(job)
    assert report.used == 16
    found = weights(job)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    rounded = sum(float((tensor != tensor.bfloat16().float()).float().mean()) for tensor in found.values())
    assert rounded / len(found) > 0.9, "nothing was rounded to bfloat16 on the way"


def test_the_engine_computes_with_the_base_that_is_trained(
    tiny_base: Path, tiny_adapters: dict[str, Path], make_job: Callable[..., TrainingJob]
) -> None:
    from peft import PeftModel

    model = ref("ada", tiny_base, tiny_adapters["ada"])
    logits = {}
    for quantize in ("nf4", None):
        engine = HfEngine(settings(quantize=quantize))
        asked = request(engine, model, "add 4 7", GREEDY)
        [done] = answers(engine, [asked]).values()
        assert done.token_ids
        prompt = torch.tensor([list(asked.prompt.token_ids or ())])
        with torch.inference_mode(), engine._weights.active(model) as module:
            logits[quantize] = module(input_ids=prompt).logits
        engine.close()
    base = load_base(make_job(base=str(tiny_base), quantize="nf4"), "cpu", "float32")
    with torch.inference_mode():
        trained = PeftModel.from_pretrained(base, str(model.adapter)).eval()(input_ids=prompt).logits
    assert torch.allclose(trained, logits["nf4"], atol=1e-4)
    assert not torch.allclose(trained, logits[None], atol=1e-1)


@pytest.mark.parametrize("rank", [4, 64])
def test_a_killed_training_with_moments_in_8_bits_ends_as_if_it_had_not_been(
    rank: int, make_job: Callable[..., TrainingJob], member: Member, tmp_path: Path
) -> None:
    """Of a small adapter bitsandbytes keeps the moments in 32 bits, of a larger one in 8."""
    from support.tiny_models import make_adapter

    adapter = make_adapter(tmp_path / "adapter", member.base, seed=3, rank=rank)
    given: dict[str, Any] = {"adapter": adapter, "settings": {"optimizer": "adamw_8bit", "save_updates": 1}}
    whole, killed = make_job("whole", **given), make_job("killed", **given)
    dpo.train_dpo(whole)

    def stop(update: int, *_: object) -> None:
        if update == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dpo.train_dpo(killed, stop)
    checkpoint = max(killed.work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert moments["state1"].dtype == torch.uint8
    resumed: list[int] = []
    dpo.train_dpo(killed, lambda update, *_: resumed.append(update))
    assert resumed[0] > 1
    assert apart(whole, killed) == 0
    plain = make_job("plain", adapter=adapter)
    dpo.train_dpo(plain)
    assert 0 < apart(whole, plain) < 1e-2
    assert not preemption.requested()


def test_an_expert_learns_with_moments_in_8_bits(make_expert: Callable[..., SftJob]) -> None:
    eight, plain = make_expert("8", {"optimizer": "adamw_8bit"}), make_expert("32")
    losses = [train_sft(job).mean_loss for job in (eight, plain)]
    assert losses[0] == pytest.approx(losses[1] or 0, rel=1e-3)
