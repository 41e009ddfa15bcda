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
from support.shapes import QWEN_7B

from sparta.cluster.slurm.profile import Profile, load_profile
from sparta.errors import SpartaError
from sparta.names import RECIPES
from sparta.pool.gpu_memory import check_memory, estimates, longest_pair
from sparta.pool.memory_account import describe, of_sft
from sparta.recipes.data import Data
from sparta.recipes.load import load
from sparta.recipes.pool import SftData
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.new_adapter import fresh_shapes

TAUGHT = {"name": "cem", "adapter": None, "sft": SftData(data="embedded:adder", size=1)}
PROFILE = {"name": "small", "nodes": 1, "gpus_per_node": 1, "gpu_memory_gib": 40}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of Qwen2.5-7B without its weights but 64 MiB of a file, more than a small base has, and a tokenizer that gives a token a letter."""
    folder = tmp_path_factory.mktemp("base")
    tiny_models.make_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(QWEN_7B))
    save_file({"lm_head.weight": np.zeros((64, 2**18), dtype=np.float32)}, folder / "model.safetensors")
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
    never = "dpo.gradient_checkpointing=false"
    check(run_of(tmp_path, base, 100, never), profile)
    long = run_of(tmp_path, base, 1500, never)
    with pytest.raises(SpartaError) as caught:
        check(long, profile)
    said = str(caught.value)
    assert said.startswith(f"DPO of ada, bea, cem on {base} is estimated to take 41.")
    assert (
        "GiB of GPU memory, and a GPU of profile small has 40: set dpo.gradient_checkpointing to auto, lower"
        in said
    )
    check(run_of(tmp_path, base, 1500), profile)
    check(run_of(tmp_path, base, 1500, "dpo.gradient_checkpointing=true"), profile)
    check(run_of(tmp_path, base, 1500, never, "dpo.max_length=1024"), profile)
    check(long, profile.model_copy(update={"gpu_memory_gib": 80}))
    check(long, profile.model_copy(update={"gpu_memory_gib": None}))


def test_members_together_beyond_the_memory_of_a_gpu_are_refused_with_the_remedy(
    base: Path, tmp_path: Path
) -> None:
    profile = Profile.model_validate({**PROFILE, "gpu_memory_gib": 24})
    check(run_of(tmp_path, base, 1500), profile)
    beyond = r"DPO of ada, bea, cem .* to take 25\.\d GiB .* has 24: set cluster\.train_together to auto \(it is 3\), lower dpo\.batch_size"
    with pytest.raises(SpartaError, match=beyond):
        check(run_of(tmp_path, base, 1500, "cluster.train_together=3"), profile)


def test_a_base_that_does_not_fit_one_gpu_is_refused_with_the_number_that_it_fits(
    base: Path, tmp_path: Path
) -> None:
    profile = Profile.model_validate({**PROFILE, "gpu_memory_gib": 16})
    with pytest.raises(
        SpartaError,
        match=r"has 16: lower .*, set engine\.quantize to nf4 in a new run or cluster\.gpus_per_training to 2, or correct",
    ):
        check(run_of(tmp_path, base, 1500), profile)
    small = profile.model_copy(update={"gpu_memory_gib": 4})
    for setting in ("engine.quantize=nf4", "cluster.gpus_per_training=2"):
        with pytest.raises(SpartaError) as caught:
            check(run_of(tmp_path, base, 1500, setting), small)
        assert "engine.quantize" not in str(caught.value), "the recipe refuses one with the other"
        assert setting == "cluster.gpus_per_training=2" or "gpus_per_training" not in str(caught.value)
    divided = run_of(tmp_path, base, 1500, "cluster.gpus_per_training=2")
    check(divided, profile)
    assert (
        " GiB of GPU memory on each of 2 GPUs with gradient checkpointing, "
        in estimates(divided, 16)[0].total
    )


def test_the_estimate_follows_gradient_checkpointing_and_auto_turns_it_on_only_where_it_is_needed(
    base: Path, tmp_path: Path
) -> None:
    run = run_of(tmp_path, base, 1500)
    off, on = (
        run_of(tmp_path, base, 1500, f"dpo.gradient_checkpointing={value}") for value in ("false", "true")
    )
    [without], [with_it] = estimates(off), estimates(on)
    for gib, chosen in ((None, without), (80, without), (40, with_it)):
        [estimate] = estimates(run, gib)
        assert estimate.parts == chosen.parts
    assert estimates(run, 40)[0].total.endswith(
        f"{with_it.gib:.1f} GiB of GPU memory with gradient checkpointing, {without.gib:.1f} without it (auto)"
    )
    assert estimates(run)[0].total.endswith(
        f" without gradient checkpointing, {with_it.gib:.1f} with it (auto)"
    )


PAPER = sorted({path.stem for path in (RECIPES / "paper").glob("[!_]*.yaml")})


@pytest.mark.parametrize("name", PAPER)
def test_every_recipe_of_the_paper_fits_the_clusters_of_the_paper_with_the_longest_pairs(
    name: str, base: Path, tmp_path: Path
) -> None:
    recipe = load(f"paper/{name}", ["data.folder=."])
    # As full models, whose adapters of rank 16 are the paper's.
    models = tuple(model.model_copy(update={"adapter": None, "sft": None}) for model in recipe.pool.models)
    pool = recipe.pool.model_copy(update={"base": str(base), "models": models})
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "x" * 4000}) + "\n")
    long = Data(train=str(tmp_path / "prompts.jsonl"))
    run = planned(StateDir(tmp_path / "state"), recipe.model_copy(update={"pool": pool, "data": long}))
    profile = load_profile("a100-16")
    assert profile.gpu_memory_gib == 40
    check_memory(run, profile.gpu_memory_gib, profile.name)
    [estimate] = estimates(run, profile.gpu_memory_gib)
    assert any("2 x 2,048 tokens" in line for line in estimate.lines), "none is longer"
    if name == "experts":
        sft = recipe.pool.sft
        for checkpointing in (True, False):
            size = (sft.batch_size, sft.max_length, "bfloat16", checkpointing)
            taught = of_sft("", describe(str(base)), fresh_shapes(str(base), recipe.pool.lora), *size)
            assert (taught.gib < 40) == checkpointing


def test_once_there_is_a_pool_its_adapters_are_estimated_and_experts_no_longer(tmp_path: Path) -> None:
    base = tiny_models.make_base(tmp_path / "base")
    for seed, name in enumerate(("ada", "bea")):
        tiny_models.make_adapter(tmp_path / name, base, seed=seed)
    recipe = load(recipe_file(tmp_path, base, 100), ("engine.kind=hf", "engine.device=cuda"))
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
    with pytest.raises(SpartaError, match=f"^DPO of ada, bea on {base} is estimated to take 0"):
        check(run, profile.model_copy(update={"gpu_memory_gib": 0.5}))


def test_a_dry_run_refuses_it_also_where_there_is_no_slurm(base: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(PROFILE))
    options = ("--recipe", recipe_file(tmp_path, base, 1500), "--state", tmp_path / "state", "--dry-run")
    never = ("--set", "dpo.gradient_checkpointing=false")
    said = sentence(
        typed("launch", *options, *never, "--profile", tmp_path / "small.yaml", PATH=str(tmp_path))
    )
    assert "is estimated to take 41." in said
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
        rf"(DPO of ada, bea, cem on {re.escape(str(base))}: 41\.\d GiB of GPU memory without .*, 1\d\.\d with it \(auto\)); .*",
        total,
    )
    assert said is not None and "jobs/init_pool.py --dry-run" in total
    first, weights, lora, *_ = memory("init_pool", *on_gpus)
    assert first == said[1]
    assert "7,615,616,512 parameters x 2 bytes" in weights and "LoRA" in lora
    assert memory("launch", *on_gpus, "--set", "engine.device=cpu") == []
