"""A training that does not fit on a profile's GPUs, with the longest possible pair, is refused before anything is submitted."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from support import tiny_models
from support.openings import begin_or_continue, planned
from support.scripted_run import advance, sentence, typed

from sparta.cluster.slurm.profile import Profile
from sparta.errors import SpartaError
from sparta.pool.gpu_memory import check_memory, longest_pair
from sparta.recipes.load import load
from sparta.recipes.pool import SftData
from sparta.store.layout import StateDir
from sparta.store.run import Run

TAUGHT = {"name": "cem", "adapter": None, "sft": SftData(data="embedded:adder", size=1)}
PROFILE = {"name": "small", "nodes": 1, "gpus_per_node": 1, "gpu_memory_gib": 40}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of Qwen2.5-7B without its weights, and a tokenizer that gives a token a letter."""
    folder = tmp_path_factory.mktemp("base")
    tiny_models.make_tokenizer(folder)
    config = {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"lm_head.weight": np.zeros((1, 1), dtype=np.float32)}, folder / "model.safetensors")
    return folder


def check(run: Run, profile: Profile) -> None:
    check_memory(run, profile.gpu_memory_gib, profile.name)


def recipe_file(folder: Path, base: Path, letters: int) -> Path:
    """A recipe of three full models, whose longest prompt has so many letters."""
    prompts = ("what?", "x" * letters)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    tree = {
        "name": "large",
        "combats": 4,
        "pool": {"base": str(base), "models": [{"name": name} for name in ("ada", "bea", "cem")]},
        "data": {"train": "prompts.jsonl"},
        "engine": {"kind": "vllm"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run_of(folder: Path, base: Path, letters: int, *settings: str) -> Run:
    recipe = load(recipe_file(folder, base, letters), settings)
    return planned(StateDir(folder / "state"), recipe)


def test_the_longest_pair_is_the_longest_prompt_and_all_tokens_of_an_answer(
    base: Path, tmp_path: Path
) -> None:
    assert 1500 + 512 < longest_pair(run_of(tmp_path, base, 1500)) < 1500 + 512 + 20


def test_what_fits_is_let_through_and_what_does_not_is_refused_with_the_remedy(
    base: Path, tmp_path: Path
) -> None:
    profile = Profile.model_validate(PROFILE)
    check(run_of(tmp_path, base, 100), profile)
    long = run_of(tmp_path, base, 1500)
    with pytest.raises(SpartaError) as caught:
        check(long, profile)
    said = str(caught.value)
    assert said.startswith(f"DPO of ada, bea, cem on {base} is estimated to take 45.")
    assert (
        "GiB of GPU memory, and a GPU of profile small has 40: set dpo.gradient_checkpointing to true" in said
    )
    check(run_of(tmp_path, base, 1500, "dpo.gradient_checkpointing=true"), profile)
    check(run_of(tmp_path, base, 1500, "dpo.max_length=1024"), profile)
    check(long, profile.model_copy(update={"gpu_memory_gib": 80}))
    check(long, profile.model_copy(update={"gpu_memory_gib": None}))


def test_once_there_is_a_pool_its_adapters_are_estimated_and_experts_no_longer(tmp_path: Path) -> None:
    base = tiny_models.make_base(tmp_path / "base")
    for seed, name in enumerate(("ada", "bea")):
        tiny_models.make_adapter(tmp_path / name, base, seed=seed)
    recipe = load(recipe_file(tmp_path, base, 100), ("engine.kind=hf",))
    named = [
        model.model_copy(update={"adapter": str(tmp_path / model.name)}) for model in recipe.pool.models[:2]
    ]
    pool = recipe.pool.model_copy(update={"models": (*named, recipe.pool.models[2])})
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe.model_copy(update={"pool": pool}))
    advance(run, 0, upto="found")
    for name in ("ada", "bea"):
        shutil.rmtree(tmp_path / name)
    taught = pool.model_copy(update={"models": (*named, named[0].model_copy(update=TAUGHT))})
    run.recipe = run.recipe.model_copy(update={"pool": taught})
    profile = Profile.model_validate(PROFILE)
    check(run, profile)
    with pytest.raises(SpartaError, match=f"^DPO of ada, bea on {base} is estimated to take 1"):
        check(run, profile.model_copy(update={"gpu_memory_gib": 1}))


def test_a_dry_run_refuses_it_also_where_there_is_no_slurm(base: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(PROFILE))
    options = ("--recipe", recipe_file(tmp_path, base, 1500), "--state", tmp_path / "state", "--dry-run")
    said = sentence(typed("launch", *options, "--profile", tmp_path / "small.yaml", PATH=str(tmp_path)))
    assert "is estimated to take 45." in said
    assert not (tmp_path / "state").exists()


def test_a_dry_run_on_gpus_shows_the_total_and_that_of_the_pool_the_arithmetic(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / "large.yaml").write_text(yaml.safe_dump({**PROFILE, "gpu_memory_gib": None}))
    options = ("--recipe", recipe_file(tmp_path, base, 1500), "--state", tmp_path / "state", "--dry-run")
    on_gpus = (*options, "--profile", tmp_path / "large.yaml")

    def memory(job: str, *given: object) -> list[str]:
        done = typed(job, *given, PATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "GiB" in line or "parameters x" in line]

    [total] = memory("launch", *on_gpus)
    said = re.fullmatch(
        rf"(DPO of ada, bea, cem on {re.escape(str(base))}: 45\.\d GiB) of GPU memory; .*", total
    )
    assert said is not None and "jobs/init_pool.py --dry-run" in total
    first, weights, lora, *_ = memory("init_pool", *on_gpus)
    assert first == said[1]
    assert "7,615,616,512 parameters x 2 bytes" in weights and "LoRA" in lora
    assert memory("launch", *on_gpus, "--set", "engine.device=cpu") == []
