"""The memory that is estimated before the models are here is that of the account, from a configuration alone."""

import json
import shutil
from pathlib import Path

import pytest

from sparta import toy
from sparta.pool import memory_beforehand as beforehand
from sparta.pool.memory_account import describe
from sparta.recipes.schema import Recipe

COMMIT = "0123456789" * 4


def recipe(base: str, folder: Path, rank: int = 16, **engine: object) -> Recipe:
    models = [{"name": name, "adapter": "hub:org/adapter"} for name in ("ada", "bea", "cem")]
    return Recipe.model_validate(
        {
            "name": "x",
            "pool": {"base": base, "models": models, "folder": str(folder), "lora": {"rank": rank}},
            "data": {"task": "toy"},
            "engine": engine,
        }
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache of the hub's library."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_papers_base_is_known(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(beforehand.KNOWN["Qwen/Qwen2.5-7B-Instruct"]))
    base = describe(str(tmp_path))
    assert (base.parameters, base.queries, base.keys) == (7_615_616_512, 3584, 512)
    [said] = beforehand.memory_beforehand(recipe("hub:Qwen/Qwen2.5-7B-Instruct", tmp_path))
    assert "GiB of GPU memory" in said and "2,048 tokens" in said and "rank 16" in said


def test_a_configuration_in_the_hubs_cache_is_enough(cache: Path, tmp_path: Path) -> None:
    other = recipe("hub:org/base", tmp_path / "models")
    assert beforehand.memory_beforehand(other) == [
        "DPO on hub:org/base: GPU memory is not known before the base is here"
    ]
    snapshot = cache / "models--org--base" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    shutil.copy(toy.BASE / "config.json", snapshot)
    [cached] = beforehand.memory_beforehand(other)
    assert "GiB of GPU memory" in cached
    [here] = beforehand.memory_beforehand(recipe(str(toy.BASE), tmp_path))
    assert cached.partition(": ")[2] == here.partition(": ")[2]


def test_a_configuration_that_tells_nothing_and_a_cpu_are_no_estimate(cache: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "of nobody"}')
    [said] = beforehand.memory_beforehand(recipe(str(base), tmp_path))
    assert said.endswith("is not known before the base is here, its config.json alone does not tell")
    assert beforehand.memory_beforehand(recipe(str(base), tmp_path, device="cpu")) == []


def test_what_the_recipe_sets_changes_it_as_it_changes_the_estimate_of_the_plan(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "hub:Qwen/Qwen2.5-7B-Instruct"
    # Two of its layers, with adapters large enough to be seen.
    shape = beforehand.KNOWN[name.removeprefix("hub:")]
    monkeypatch.setitem(beforehand.KNOWN, name.removeprefix("hub:"), {**shape, "num_hidden_layers": 2})
    plain = recipe(name, tmp_path, 256)
    dpo, cluster = plain.dpo, plain.cluster
    together = plain.model_copy(update={"cluster": cluster.model_copy(update={"train_together": 3})})
    settings = {
        "quantize": recipe(name, tmp_path, 256, quantize="nf4"),
        "attention": recipe(name, tmp_path, 256, attention="eager"),
        "optimizer": plain.model_copy(update={"dpo": dpo.model_copy(update={"optimizer": "adamw_8bit"})}),
        "gpus": plain.model_copy(update={"cluster": cluster.model_copy(update={"gpus_per_training": 2})}),
        "together": together,
    }
    [first] = beforehand.memory_beforehand(plain)
    sentences = {key: beforehand.memory_beforehand(changed)[0] for key, changed in settings.items()}
    assert len({first, *sentences.values()}) == 1 + len(settings)
    assert "on each of 2 GPUs" in sentences["gpus"]
    divided = settings["gpus"]
    steps = divided.model_copy(update={"dpo": dpo.model_copy(update={"accumulation": 4})})
    assert beforehand.memory_beforehand(steps) != [sentences["gpus"]]
