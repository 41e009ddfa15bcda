"""New adapters: without effect at first, equal for equal seeds, and what every part of the suite takes for a LoRA adapter."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from support.tiny_adapters import Member, fresh_folder, tensors

from sparta.engines.adapter_check import check_adapter
from sparta.errors import SpartaError
from sparta.recipes.pool import Lora
from sparta.training.adapter_folder import check_trainable
from sparta.training.dpo import train_dpo
from sparta.training.job import TrainingJob
from sparta.training.new_adapter import check_shape, fresh_adapter, fresh_shapes

SHAPE = Lora(rank=4, alpha=8)


@pytest.fixture
def fresh(member: Member, tmp_path: Path) -> Path:
    """A new adapter for the base of `member`."""
    return fresh_folder(tmp_path / "fresh", member.base, SHAPE, seed=7)


def test_a_model_with_a_new_adapter_is_the_base_exactly(member: Member, fresh: Path) -> None:
    ids = [3, 5, 7, 11, 13]
    with torch.no_grad():
        bare = member.load_base()(torch.tensor([ids])).logits[0]
    assert torch.equal(member.logits(fresh, ids), bare)


def test_peft_loads_it_without_a_warning_and_misses_nothing(member: Member, fresh: Path) -> None:
    from peft import PeftModel, get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PeftModel.from_pretrained(member.load_base(), fresh)
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert loaded.keys() == tensors(fresh).keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors(fresh).items())
    adapted = {name.split(".")[-3] for name in loaded}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_engines_and_training_take_it(member: Member, fresh: Path) -> None:
    check_adapter(fresh, member.base)
    check_trainable("new", fresh)


def test_dpo_starts_from_it_at_ln_2_and_gives_it_an_effect(
    make_job: Callable[..., TrainingJob], member: Member, fresh: Path
) -> None:
    job = make_job(adapter=fresh)
    report = train_dpo(job)
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-6)
    assert not torch.equal(member.logits(job.out, [3, 5, 7]), member.logits(fresh, [3, 5, 7]))
    assert json.loads((job.out / "adapter_config.json").read_text()) == json.loads(
        (fresh / "adapter_config.json").read_text()
    )


def test_equal_seeds_give_equal_files_and_others_other_weights(member: Member) -> None:
    base = str(member.base)
    one, again, other = (fresh_adapter(base, SHAPE, seed) for seed in (7, 7, 8))
    assert one == again
    assert one["adapter_config.json"] == other["adapter_config.json"]
    assert one["adapter_model.safetensors"] != other["adapter_model.safetensors"]


def test_a_is_as_pytorch_begins_a_linear_layer_and_b_is_zero(member: Member) -> None:
    made = load(fresh_adapter(str(member.base), Lora(rank=64), 7)["adapter_model.safetensors"])
    for name, tensor in made.items():
        assert tensor.dtype == torch.float32
        if ".lora_B." in name:
            assert not tensor.any()
        else:
            bound = 1 / math.sqrt(tensor.shape[1])
            assert 0.95 * bound < tensor.abs().max() <= bound
            assert tensor.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == fresh_shapes(
        str(member.base), Lora(rank=64)
    )


def test_its_configuration_names_no_folder_and_has_its_shape_and_sorted_keys(member: Member) -> None:
    shape = Lora(rank=2, alpha=3.5, dropout=0.1, targets=("v_proj", "q_proj"))
    content = fresh_adapter(str(member.base), shape, 7)["adapter_config.json"].decode()
    assert str(member.base.parent) not in content
    told = json.loads(content)
    assert list(told) == sorted(told)
    assert (told["r"], told["lora_alpha"], told["lora_dropout"]) == (2, 3.5, 0.1)
    assert told["target_modules"] == ["q_proj", "v_proj"]


def test_a_target_that_the_base_does_not_have_is_named_with_those_it_has(member: Member) -> None:
    with pytest.raises(
        SpartaError, match="names c_attn, and base .* has no linear module of that name"
    ) as caught:
        check_shape(str(member.base), Lora(targets=("q_proj", "c_attn")))
    assert "down_proj, gate_proj" in str(caught.value)


def test_a_configuration_of_no_known_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    with pytest.raises(SpartaError, match=r"not described by its config\.json as a causal language model"):
        check_shape(str(tmp_path), SHAPE)
