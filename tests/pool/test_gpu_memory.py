"""The estimate of GPU memory: its arithmetic for the paper's models, and its parts against what PyTorch really keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.tiny_adapters import Member, fresh_folder

from sparta.errors import SpartaError
from sparta.pool.gpu_memory import GIB, MemoryEstimate, describe, of_dpo, of_sft, shapes_of
from sparta.recipes.pool import Lora
from sparta.training.new_adapter import fresh_shapes

QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The configuration of Qwen2.5-7B, and nothing else."""
    folder = tmp_path_factory.mktemp("qwen")
    (folder / "config.json").write_text(json.dumps(QWEN_7B))
    return str(folder)


def sizes(estimate: MemoryEstimate) -> dict[str, float]:
    return {part.what: round(part.bytes / GIB, 2) for part in estimate.parts}


def test_the_pool_of_the_paper_fits_40_gb_at_length_2048_with_this_arithmetic(qwen: str) -> None:
    base, adapter = describe(qwen), fresh_shapes(qwen, Lora(rank=16))
    estimate = of_dpo("DPO of cot", base, adapter, 1, 2048, "bfloat16", checkpointing=True)
    assert sizes(estimate) == {
        # 7,615,616,512 parameters x 2 bytes
        "weights": 14.19,
        # 40,370,176 parameters x 5 (weights, gradients, two moments, the reference) x 4 bytes
        "LoRA": 0.75,
        # 4,096 tokens x (28 layers x 3,584 x 2 bytes + 252,128 bytes)
        "activations": 1.73,
        # 4,096 tokens x 252,128 bytes
        "gradients": 0.96,
        # 4,096 x 32,768 x 2 bytes, and 4,096 x 3,584 x 6 bytes
        "logits": 0.33,
        # 1 GiB, and 5 % of all above
        "allowance": 1.9,
    }
    assert estimate.gib == pytest.approx(19.9, abs=0.05)
    first, *arithmetic = estimate.lines
    assert first == "DPO of cot: 19.9 GiB"
    said = "\n".join(arithmetic)
    for part in ("7,615,616,512 parameters x 2 bytes (bfloat16)", "40,370,176 parameters x 5 x 4 bytes"):
        assert part in said
    assert (
        "2 x 2,048 tokens x (28 layers x 3,584 x 2 bytes kept + one layer recomputed, 252,128 bytes" in said
    )


def test_without_checkpoints_two_sides_of_2048_tokens_are_too_much_for_40_gb_and_one_row_is_not(
    qwen: str,
) -> None:
    base, adapter = describe(qwen), fresh_shapes(qwen, Lora(rank=16))
    assert of_dpo("", base, adapter, 1, 2048, "bfloat16", checkpointing=False).gib == pytest.approx(
        46.3, abs=0.1
    )
    assert of_sft("", base, adapter, 1, 2048, "bfloat16", checkpointing=False).gib == pytest.approx(
        31.3, abs=0.1
    )
    assert of_sft("", base, adapter, 4, 2048, "bfloat16", checkpointing=True).gib < 24


def test_parameters_are_those_of_the_real_model_and_adapter(member: Member, tmp_path: Path) -> None:
    model = member.load(fresh_folder(tmp_path, member.base, Lora(rank=4)))
    counted: dict[bool, int] = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        counted["lora_" in name] += parameter.numel()
    parts = {
        part.what: part.bytes
        for part in of_dpo("", describe(str(member.base)), shapes_of(tmp_path), 1, 16, "float32", False).parts
    }
    assert parts["weights"] == 4 * counted[False]
    assert parts["LoRA"] == 4 * 5 * counted[True]


def test_states_of_the_optimizer_are_two_numbers_a_parameter(member: Member, tmp_path: Path) -> None:
    model = member.load(fresh_folder(tmp_path, member.base, Lora(rank=4)))
    learned = [parameter.requires_grad_() for name, parameter in model.named_parameters() if "lora_" in name]
    optimizer = torch.optim.AdamW(learned)
    model(torch.tensor([[3, 5, 7]])).logits.sum().backward()
    optimizer.step()
    moments = [
        state.nbytes
        for states in optimizer.state.values()
        for name, state in states.items()
        if name in ("exp_avg", "exp_avg_sq")
    ]
    kept = sum(parameter.nbytes + parameter.grad.nbytes for parameter in learned) + sum(moments)
    [lora] = [
        part.bytes
        for part in of_sft("", describe(str(member.base)), shapes_of(tmp_path), 1, 16, "float32", False).parts
        if part.what == "LoRA"
    ]
    assert lora == kept


def kept_for_backward(model: Any, tokens: int) -> int:
    """Bytes that PyTorch keeps from a forward pass in bfloat16, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        model.get_base_model().model(torch.zeros((1, tokens), dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_activations_of_a_layer_are_what_pytorch_keeps(
    width: int, checkpointing: bool, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tokens, kept = 256, {}
    for layers in (1, 3):
        folder = tiny_models.make_base(tmp_path / str(layers), layers=layers, width=width)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        model = get_peft_model(
            base, LoraConfig(r=4, target_modules=tiny_models.TARGETS, task_type="CAUSAL_LM")
        )
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        kept[layers] = kept_for_backward(model, tokens)
    reckoned = {}
    for layers in (1, 3):
        folder = str(tmp_path / str(layers))
        estimate = of_sft(
            "", describe(folder), fresh_shapes(folder, Lora(rank=4)), 1, tokens, "bfloat16", checkpointing
        )
        [reckoned[layers]] = [part.bytes for part in estimate.parts if part.what == "activations"]
    more, said = kept[3] - kept[1], reckoned[3] - reckoned[1]
    assert more == pytest.approx(said, rel=0.1 if not checkpointing else 0.02)


def test_a_mixture_counts_the_experts_that_a_token_is_sent_to(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2_moe",
        "hidden_size": 64,
        "intermediate_size": 256,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(str(tmp_path)).inner == 2 * 32 + 48


def test_a_base_without_a_shape_in_its_config_is_named_with_the_workaround(tmp_path: Path) -> None:
    config = {"model_type": "mamba", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpartaError, match=r"does not give its shape .* set gpu_memory_gib to null"):
        describe(str(tmp_path))
