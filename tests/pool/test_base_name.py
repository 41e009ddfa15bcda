"""Adapters of a state name their base so that PEFT finds it or shows what to set; equal recipes make equal adapters."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from support import tiny_models
from support.openings import begin_or_continue
from support.scripted_run import advance
from transformers import AutoModelForCausalLM

from sparta import toy
from sparta.pool.base_name import naming_base
from sparta.pool.members import starting_adapter
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.run import Run

RECIPE = """
name: named
combats: 4
iterations: 1
data: {{train: prompts.jsonl}}
generation: {{max_new_tokens: 4}}
judging: {{mode: expected}}
engine: {{kind: hf, device: cpu, context_length: 512, threads: 1}}
cluster: {{kind: inline}}
pool:
  base: {base}
  lora: {{rank: 4}}
  models: {models}
"""


def played(folder: Path, state: str, base: str, *models: dict[str, str], upto: int = 0) -> Run:
    """A run up to the commit of an iteration."""
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(8)))
    path = folder / f"{state}.yaml"
    path.write_text(RECIPE.format(base=base, models=json.dumps(models)))
    run = begin_or_continue(StateDir(folder / state), load(path))
    advance(run, 0, upto="found")
    for t in range(1, upto + 1):
        advance(run, t)
    return run


def told(adapter: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text())
    return read


def test_peft_alone_loads_what_a_run_has_trained_as_the_run_does(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters that name another machine's base, or none; loaded from any working directory."""
    foreign = Path(shutil.copytree(tiny_adapters["ada"], tmp_path / "foreign"))
    config = told(foreign) | {"base_model_name_or_path": "org/base", "revision": "v7", "task_type": None}
    (foreign / "adapter_config.json").write_text(json.dumps(config))
    models = [
        {"name": "ada", "adapter": str(foreign)},
        {"name": "bea", "adapter": str(tiny_adapters["bea"])},
        {"name": "new"},
    ]
    run = played(tmp_path, "state", str(tiny_base), *models, upto=1)
    monkeypatch.chdir(tmp_path)
    ids = torch.tensor([[3, 4, 5]])
    for t in (0, 1):
        for name, member in run.pool(t).items():
            adapter = run.state.root / member.adapter
            assert told(adapter)["base_model_name_or_path"] == str(tiny_base)
            alone = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
            ours = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), adapter).eval()
            with torch.inference_mode():
                assert torch.equal(alone(ids).logits, ours(ids).logits), (t, name)
    kept = told(run.state.root / run.pool(1)["ada"].adapter)
    changed = {"base_model_name_or_path", "revision", "task_type"}
    assert {key for key in config if kept[key] != config[key]} == changed


def test_equal_recipes_make_equal_adapters_wherever_their_states_are(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    models = [{"name": "ada", "adapter": str(tiny_adapters["ada"])}, {"name": "bea"}, {"name": "cem"}]
    one, other = (played(tmp_path, state, str(tiny_base), *models).pool(0) for state in ("one", "other"))
    assert one == other


def test_a_base_that_is_part_of_the_code_is_named_by_what_to_set(tmp_path: Path) -> None:
    models = [{"name": name, "adapter": f"embedded:{name}"} for name in ("adder", "mirror")]
    run = played(tmp_path, "state", "embedded:base", *models, {"name": "new"})
    for name in ("adder", "new"):
        adapter = run.state.root / run.pool(0)[name].adapter
        with pytest.raises(
            (OSError, ValueError),
            match="set base_model_name_or_path to the folder sparta/toy/weights/base of the code",
        ):
            AutoPeftModelForCausalLM.from_pretrained(adapter)
        # Nothing of where the code lies here.
        assert str(toy.WEIGHTS) not in (adapter / "adapter_config.json").read_text()


def test_a_base_of_the_hub_is_named_as_the_hub_names_it(tiny_base: Path, tmp_path: Path) -> None:
    contents = {
        "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": null}',
        "adapter_model.safetensors": b"x",
    }
    for reference, name, revision in (
        ("hub:org/base", "org/base", None),
        ("hub:org/base@refs/pr/1", "org/base", "refs/pr/1"),
    ):
        named = naming_base(contents, reference)
        config = json.loads(named["adapter_config.json"])
        assert (config["base_model_name_or_path"], config["revision"]) == (name, revision)
        assert named["adapter_model.safetensors"] == b"x"
    assert naming_base(contents, "hub:org/base") == naming_base(named, "hub:org/base")


def test_an_expert_that_is_trained_from_data_begins_with_the_name_of_its_base(
    tmp_path: Path, tiny_base: Path
) -> None:
    base = tiny_models.make_base(tmp_path / "own", seed=3)
    models = [{"name": "ada"}, {"name": "bea"}, {"name": "cem", "base": str(base)}]
    recipe = played(tmp_path, "state", str(tiny_base), *models).recipe
    named = {
        model.name: json.loads(starting_adapter(recipe, model, 1)["adapter_config.json"])[
            "base_model_name_or_path"
        ]
        for model in recipe.pool.models
    }
    assert named == {"ada": str(tiny_base), "bea": str(tiny_base), "cem": str(base)}
