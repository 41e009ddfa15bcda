"""Quantised bases are detected by their configuration or, without one, by their weights."""

import json
import shutil
from pathlib import Path

import pytest
from support.quantised_bases import make_awq, make_gptq

from sparta.engines.quantised import check_loadable, check_quantised_once, check_trainable_base, quantised
from sparta.errors import SpartaError


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    check_trainable_base(tiny_base)
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def says(base: Path, **told: object) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | told))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq in its config.json"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq in its config.json"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config in its config.json"),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization in its config.json"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_a_base_with_a_quantisation_config_is_refused(
    told: dict[str, object], words: str, base: Path
) -> None:
    says(base, **told)
    with pytest.raises(
        SpartaError, match=f"is quantised .*{words}.*name the bfloat16, float16 or float32 model"
    ) as caught:
        check_trainable_base(base)
    assert str(caught.value).startswith(f"base {base} ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_base_with_a_separate_quantisation_file_is_refused(file: str, base: Path) -> None:
    (base / file).write_text("{}")
    with pytest.raises(SpartaError, match=f"is quantised .it has a {file}"):
        check_trainable_base(base)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("layers.0.q_proj.qweight", "int32"), ("layers.0.q_proj.weight", "int8"), ("a.weight", "float8_e4m3fn")],
)
def test_a_base_with_quantised_weights_is_refused(name: str, dtype: str, base: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    tensors["position_ids"] = torch.arange(8)
    save_file(tensors, base / "model.safetensors")
    check_trainable_base(base)
    save_file(tensors | {name: torch.zeros(4, 4, dtype=getattr(torch, dtype))}, base / "model.safetensors")
    with pytest.raises(SpartaError, match=f"is quantised .{name} is "):
        check_trainable_base(base)


def test_a_base_whose_config_says_that_it_is_not_quantised_is_accepted(base: Path) -> None:
    says(base, quantization_config=None, torch_dtype="bfloat16")
    check_trainable_base(base)


def test_torn_weights_are_noticed(base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SpartaError, match="not a whole safetensors file"):
        check_trainable_base(base)


def test_a_base_is_refused_for_training_with_its_kind_and_two_ways_on(base: Path, tmp_path: Path) -> None:
    for kind, make in (("awq", make_awq), ("gptq", make_gptq)):
        packed = make(tmp_path / kind, base)
        found = quantised(packed)
        assert found is not None and found.kind == kind
        with pytest.raises(
            SpartaError, match=f"^base {packed} is quantised .{kind} .* set engine.quantize to nf4"
        ):
            check_trainable_base(packed)
        with pytest.raises(SpartaError, match=f"{kind} in its config.json., which engine hf cannot read"):
            check_loadable(packed)
        with pytest.raises(SpartaError, match="is quantised already .* leave its engine's quantize out"):
            check_quantised_once(packed, "nf4")
        check_quantised_once(packed, None)
    check_quantised_once(base, "nf4")
    check_loadable(base)


def test_transformers_reads_what_bitsandbytes_has_quantised(base: Path) -> None:
    says(base, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    check_loadable(base)
