"""What check_adapter refuses, and that it needs no torch to do so."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models

from sparta import toy
from sparta.engines.adapter_check import check_adapter
from sparta.errors import SpartaError
from sparta.training.adapter_fit import check_fit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def adapter(tmp_path: Path, tiny_adapters: dict[str, Path]) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_adapters["ada"], tmp_path / "adapter"))


def refusal(adapter: Path, base: Path) -> str:
    with pytest.raises(SpartaError) as caught:
        check_adapter(adapter, base)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_adapter_of_this_base_is_accepted(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    for folder in tiny_adapters.values():
        check_adapter(folder, tiny_base)


def test_checking_imports_neither_torch_nor_peft(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from sparta.engines.adapter_check import check_adapter;"
        f"check_adapter(Path({str(tiny_adapters['ada'])!r}), Path({str(tiny_base)!r}));"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_missing_folder_is_named(tmp_path: Path, tiny_base: Path, adapter: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere", tiny_base)
    assert f"base {tmp_path / 'no-base'} has no config.json" in refusal(adapter, tmp_path / "no-base")
    (adapter / "adapter_config.json").unlink()
    assert "adapter_config.json" in refusal(adapter, tiny_base)


def test_a_folder_without_weights_is_incomplete(tiny_base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    assert "incomplete" in refusal(adapter, tiny_base)


def test_a_pickle_is_refused_with_the_remedy(tiny_base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    message = refusal(adapter, tiny_base)
    assert "adapter_model.bin, a pickle" in message
    assert "save_pretrained" in message


def test_other_kinds_of_adapter_are_refused(tiny_base: Path, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    assert "IA3" in refusal(adapter, tiny_base)
    (adapter / "adapter_config.json").write_text("{")
    assert "cannot be read" in refusal(adapter, tiny_base)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_torn_file_is_noticed(tiny_base: Path, adapter: Path, keep: int) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "not a whole safetensors file" in refusal(adapter, tiny_base)


@pytest.mark.parametrize("shape", [{"width": 32}, {"width": 128}, {"layers": 1}, {"layers": 3}])
def test_an_adapter_for_another_base_is_recognised_by_its_shapes(
    tmp_path: Path, tiny_base: Path, shape: dict[str, int]
) -> None:
    other = tiny_models.make_base(tmp_path / "other", **shape)
    foreign = tiny_models.make_adapter(tmp_path / "foreign", other, seed=1)
    config = json.loads((foreign / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tiny_base)
    (foreign / "adapter_config.json").write_text(json.dumps(config))
    check_adapter(foreign, other)
    assert "for another base" in refusal(foreign, tiny_base)


@pytest.mark.parametrize(
    ("key", "value"), [("num_key_value_heads", 4), ("intermediate_size", 96), ("head_dim", 8)]
)
def test_every_width_counts(tmp_path: Path, tiny_base: Path, adapter: Path, key: str, value: int) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    config = json.loads((tiny_base / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, key: value}))
    assert "for another base" in refusal(adapter, other)


SPOILED = {
    "one more prefix": lambda name: f"base_model.model.{name}",
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "less of it": lambda name: name.removeprefix("base_model."),
    "that of a wrapper": lambda name: f"module.{name}",
    "without the model's own": lambda name: name.replace("base_model.model.model.", "base_model.model."),
    "one more of the model's own": lambda name: name.replace("base_model.model.", "base_model.model.a.b."),
}


@pytest.mark.parametrize("how", SPOILED)
def test_an_adapter_whose_tensor_names_match_no_module_is_refused(how: str, tmp_path: Path) -> None:
    for name, folder in toy.ADAPTERS.items():
        spoiled = tiny_models.renamed_adapter(tmp_path / name, folder, SPOILED[how])
        said = refusal(spoiled, toy.BASE)
        assert said.startswith(f"adapter {spoiled} would change nothing: PEFT finds no module for")
        assert "names that begin with base_model.model.model.layers." in said


def test_one_wrong_name_is_enough(tmp_path: Path) -> None:
    at = "base_model.model.model.layers.1.self_attn.q_proj."
    one = tiny_models.renamed_adapter(
        tmp_path / "one",
        toy.ADAPTERS["adder"],
        lambda name: name.replace(at, at.replace("self_attn", "attn")),
    )
    with pytest.raises(SpartaError, match="does not fit base"):
        check_fit(one, str(toy.BASE))


def test_names_are_read_from_all_files_of_a_sharded_base(
    tmp_path: Path, tiny_base: Path, adapter: Path
) -> None:
    from transformers import AutoModelForCausalLM

    parts = Path(shutil.copytree(tiny_base, tmp_path / "parts"))
    (parts / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_base).save_pretrained(parts, max_shard_size="60KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    check_adapter(adapter, parts)
    check_fit(adapter, str(parts))
    spoiled = tiny_models.renamed_adapter(tmp_path / "spoiled", adapter, SPOILED["one more prefix"])
    assert "would change nothing" in refusal(spoiled, parts)


def test_a_base_of_pickles_is_refused(tmp_path: Path, tiny_base: Path, adapter: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    (base / "pytorch_model.bin.index.json").write_text('{"weight_map": {}}')
    assert "has no model.safetensors: other weight formats are not supported" in refusal(adapter, base)
