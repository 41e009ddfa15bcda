"""The pool of a recipe: what is refused before anything is loaded, notes about it, and M^0 in the state."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import tiny_models
from support.openings import begin_or_continue, planned
from support.quantised_bases import make_awq
from support.scripted_run import advance, begin

from sparta.commands.begin import prepare_begin
from sparta.errors import SpartaError
from sparta.names import MODELS
from sparta.pool.checks import check_judge, check_pool, notes
from sparta.pool.gpu_memory import MemoryEstimate, estimates
from sparta.pool.members import adapters_of, judge_reference, locate, references
from sparta.recipes.load import adjust, load
from sparta.recipes.schema import DATASETS, Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run

OTHER_MERGES = [("o", "n"), ("a", "n"), ("an", "d")]


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of another width and with another tokenizer than `tiny_base`."""
    return tiny_models.make_base(tmp_path_factory.mktemp("other") / "base", width=32, merges=OTHER_MERGES)


def recipe_of(folder: Path, base: Path, models: Sequence[Mapping[str, object]], **changes: Any) -> Recipe:
    """A recipe with these members, for transformers on a CPU."""
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(8)))
    tree = {
        "name": "pool",
        "combats": 4,
        "iterations": 1,
        "data": {"train": "prompts.jsonl"},
        "generation": {"max_new_tokens": 4},
        "judging": {"mode": "expected"},
        "engine": {"kind": "hf", "device": "cpu", "context_length": 512, "threads": 1},
        "cluster": {"kind": "inline"},
        **changes,
        "pool": {"base": str(base), "models": list(models), "lora": {"rank": 4}, **changes.get("pool", {})},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return load(folder / "recipe.yaml")


def full(*names: str, **fields: object) -> list[dict[str, object]]:
    return [{"name": name, **fields} for name in names]


def refused(recipe: Recipe) -> str:
    """The error of the pool's check: one line that begins with the model at fault."""
    with pytest.raises(SpartaError) as caught:
        check_pool(recipe)
    said = str(caught.value)
    assert "\n" not in said
    return said


def spoiled(base: Path, folder: Path, missing: str) -> Path:
    shutil.copytree(base, folder)
    (folder / missing).unlink()
    return folder


# --- where models are


def test_a_model_of_the_hub_lies_below_the_folder_of_the_pool_by_owner_name_and_revision() -> None:
    assert locate("hub:own/model", "/pool") == "/pool/own/model"
    assert locate("hub:own/model@refs/pr/1", "/pool") == "/pool/own/model@refs@pr@1"
    assert locate("hub:own/model@refs_pr_1", "/pool") == "/pool/own/model@refs_pr_1"
    assert locate("hub:own/model", None) == str(MODELS / "own" / "model")
    assert locate("/somewhere", "/pool") == "/somewhere"
    with pytest.raises(SpartaError, match="hub:../model is not a valid hub reference"):
        locate("hub:../model", "/pool")


def test_a_recipe_with_hub_models_stores_their_folder_because_jobs_run_from_a_copy_of_the_code(
    tmp_path: Path, tiny_base: Path
) -> None:
    models = full("ada", "bea", "cem")
    assert recipe_of(tmp_path, tiny_base, models).pool.folder is None
    hub = recipe_of(tmp_path, tiny_base, [*models, {"name": "dov", "base": "hub:own/model"}])
    assert hub.pool.folder == str(MODELS)
    assert hub.hash == hub.model_copy(update={"pool": hub.pool.model_copy(update={"folder": None})}).hash
    own = recipe_of(tmp_path, tiny_base, models, pool={"folder": "models"})
    assert own.pool.folder == str(tmp_path / "models")


def test_a_recipe_with_only_a_hub_judge_stores_its_folder_too(tmp_path: Path, tiny_base: Path) -> None:
    models = full("ada", "bea", "cem")
    judge = {"base": str(tiny_base), "adapter": "hub:own/judge@v1"}
    named = recipe_of(tmp_path, tiny_base, models, evaluation={"judge": judge})
    later = adjust(recipe_of(tmp_path, tiny_base, models), ["evaluation.judge.base=hub:own/judge"])
    for recipe in (named, later):
        assert recipe.pool.folder == str(MODELS)
    assert judge_reference(later).base == str(MODELS / "own" / "judge")
    own = adjust(
        recipe_of(tmp_path, tiny_base, models, pool={"folder": "models"}), ["evaluation.judge.base=hub:o/j"]
    )
    assert judge_reference(own).base == str(tmp_path / "models" / "o" / "j")


def test_a_recipe_with_experts_from_subsets_stores_their_folder(tmp_path: Path, tiny_base: Path) -> None:
    others = full("ada", "bea")
    for data, folder in (("cot", str(DATASETS)), ("embedded:fold", None), ("lessons.jsonl", None)):
        recipe = recipe_of(tmp_path, tiny_base, [*others, {"name": "cem", "sft": {"data": data}}])
        assert recipe.data.folder == folder
    models = "[{name: ada}, {name: bea}, {name: cem, sft: {data: cot}}]"
    assert adjust(recipe, [f"pool.models={models}"]).data.folder == str(DATASETS)


def test_a_judge_that_is_no_model_of_the_hub_is_refused_with_the_recipe(
    tmp_path: Path, tiny_base: Path
) -> None:
    said = "evaluation.judge.base: hub:judge is not a valid hub reference: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION$"
    with pytest.raises(SpartaError, match=said):
        recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem"), evaluation={"judge": {"base": "hub:judge"}})


# --- what is refused


def test_a_pool_of_every_kind_of_member_is_in_order(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], other_base: Path
) -> None:
    check_pool(
        recipe_of(
            tmp_path,
            tiny_base,
            [
                {"name": "ada", "adapter": str(tiny_adapters["ada"])},
                {"name": "full"},
                {"name": "other", "base": str(other_base)},
                {"name": "twin", "copy_of": "ada"},
            ],
        )
    )


def test_an_adapter_for_another_base_is_refused(
    tmp_path: Path, tiny_adapters: dict[str, Path], other_base: Path
) -> None:
    models = [*full("bea", "cem"), {"name": "ada", "adapter": str(tiny_adapters["ada"])}]
    said = refused(recipe_of(tmp_path, other_base, models))
    assert said.startswith("model ada: adapter ") and "is for another base" in said


def test_a_full_model_whose_base_is_missing_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    models = [*full("ada", "bea"), {"name": "cem", "base": str(tmp_path / "nowhere")}]
    said = refused(recipe_of(tmp_path, tiny_base, models))
    assert said == (
        f"model cem: base {tmp_path / 'nowhere'} is not a folder with a config.json; correct it in the recipe or put the model there"
    )


def test_a_base_named_like_a_hub_model_is_refused_with_how_to_name_and_fetch_it(
    tmp_path: Path, tiny_base: Path
) -> None:
    said = refused(
        recipe_of(tmp_path, tiny_base, [*full("ada", "bea"), {"name": "cem", "base": "own/model"}])
    )
    assert said.startswith("model cem: base own/model is not a folder with a config.json")
    assert "name hub:own/model and fetch it: run python jobs/init_pool.py --recipe R --fetch" in said


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("tokenizer_config.json", "has no chat template: use an instruction-tuned base"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no model.safetensors"),
    ],
)
def test_every_base_needs_weights_a_tokenizer_and_a_chat_template(
    missing: str, words: str, tmp_path: Path, tiny_base: Path
) -> None:
    poor = spoiled(tiny_base, tmp_path / "poor", missing)
    said = refused(recipe_of(tmp_path, tiny_base, [*full("ada", "bea"), {"name": "cem", "base": str(poor)}]))
    assert said.startswith(f"model cem: base {poor}") and words in said


@pytest.mark.parametrize("key", ["base", "adapter"])
def test_what_is_not_fetched_from_the_hub_yet_is_named_with_the_command_that_does(
    key: str, tmp_path: Path, tiny_base: Path
) -> None:
    models = [*full("ada", "bea"), {"name": "cem", key: "hub:own/model@main"}]
    said = refused(recipe_of(tmp_path, tiny_base, models, pool={"folder": str(tmp_path / "models")}))
    assert said.startswith(
        f"model cem: hub:own/model@main has not been fetched to {tmp_path}/models/own/model@main"
    )
    assert "python jobs/init_pool.py --recipe R --fetch" in said


def test_what_is_fetched_from_the_hub_is_used(tmp_path: Path, tiny_base: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "models" / "own" / "model")
    models = [*full("ada", "bea"), {"name": "cem", "base": "hub:own/model"}]
    recipe = recipe_of(tmp_path, tiny_base, models, pool={"folder": str(tmp_path / "models")})
    check_pool(recipe)
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe)
    advance(run, 0, upto="found")
    assert run.pool(0)["cem"].base == "hub:own/model"
    assert references(run, 0)["cem"].base == str(tmp_path / "models" / "own" / "model")


def test_a_shape_that_a_base_cannot_take_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    said = refused(
        recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem"), pool={"lora": {"targets": ["c_attn"]}})
    )
    assert said.startswith("model ada: pool.lora.targets names c_attn") and "q_proj" in said
    engine = {"kind": "auto", "device": "cpu", "vllm": {"max_rank": 2}, "context_length": 512}
    said = refused(recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem"), engine=engine))
    assert (
        said
        == "pool.lora has rank 4, more than engine.vllm.max_rank, which is 2: raise it, or set it to null"
    )


def test_an_adapter_with_a_module_or_a_rank_of_another_is_refused(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    from safetensors.numpy import load_file, save_file

    def said_of(folder: Path) -> str:
        models = [*full("bea", "cem"), {"name": "ada", "adapter": str(folder)}]
        return refused(recipe_of(tmp_path, tiny_base, models))

    ranked = Path(shutil.copytree(tiny_adapters["ada"], tmp_path / "ranked"))
    config = ranked / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    assert "has rank 4, but its adapter_config.json says 8" in said_of(ranked)
    foreign = Path(shutil.copytree(tiny_adapters["ada"], tmp_path / "foreign"))
    weights = foreign / "adapter_model.safetensors"
    save_file(
        {name.replace("q_proj", "c_attn"): value for name, value in load_file(weights).items()}, weights
    )
    assert f"it adapts c_attn, but base {tiny_base} has no module of that name" in said_of(foreign)


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (lambda name: f"base_model.model.{name}", "would change nothing"),
        (lambda name: name.removeprefix("base_model.model."), "would change nothing"),
        # Names that vLLM would take for the right ones, and the base's own names do not rule out.
        (lambda name: name.replace("model.layers", "other.model.layers"), "28 of its tensors have no module"),
        (
            lambda name: None if "layers.1.self_attn.k_proj" in name else name,
            "2 that its adapter_config.json asks",
        ),
    ],
)
def test_an_adapter_that_would_change_nothing_or_half_is_refused_in_the_dry_run(
    rename: Callable[[str], str | None],
    words: str,
    tmp_path: Path,
    tiny_base: Path,
    tiny_adapters: dict[str, Path],
) -> None:
    spoiled = tiny_models.renamed_adapter(tmp_path / "spoiled", tiny_adapters["ada"], rename)
    models = [*full("bea", "cem"), {"name": "ada", "adapter": str(spoiled)}]
    recipe = recipe_of(tmp_path, tiny_base, models)
    assert refused(recipe).startswith(f"model ada: adapter {spoiled} ") and words in refused(recipe)
    with pytest.raises(SpartaError, match=f"^model ada: adapter .*{words}"):
        prepare_begin(StateDir(tmp_path / "state"), recipe)


def test_the_judge_of_evaluations_is_held_to_the_same(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    half = tiny_models.renamed_adapter(
        tmp_path / "half",
        tiny_adapters["ada"],
        lambda name: None if "layers.1.self_attn.k_proj" in name else name,
    )
    judge = {"base": str(tiny_base), "adapter": str(half), "engine": {"kind": "hf", "device": "cpu"}}
    recipe = recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem"), evaluation={"judge": judge})
    with pytest.raises(
        SpartaError, match=r"^evaluation.judge: adapter .*2 that its adapter_config.json asks"
    ):
        check_judge(recipe)


def test_a_quantised_judge_grades_with_vllm_alone(tmp_path: Path, tiny_base: Path) -> None:
    awq = make_awq(tmp_path / "awq", tiny_base)

    def judged(**engine: object) -> Recipe:
        judge = {"base": str(awq), "engine": engine}
        return recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem"), evaluation={"judge": judge})

    check_judge(judged(kind="vllm"))
    for engine, words in (
        ({"kind": "hf"}, "engine hf cannot read"),
        ({}, "engine hf cannot read"),
        ({"kind": "vllm", "quantize": "nf4"}, "is quantised already"),
        (
            {"kind": "api", "api": {"url": "http://127.0.0.1:1/v1"}, "quantize": "nf4"},
            "no model of an endpoint",
        ),
    ):
        with pytest.raises(SpartaError, match=f"^evaluation.judge: .*{words}"):
            check_judge(judged(**engine))


def test_a_quantised_base_is_refused_in_the_dry_run(tmp_path: Path, tiny_base: Path) -> None:
    small = Path(shutil.copytree(tiny_base, tmp_path / "small"))
    config = json.loads((small / "config.json").read_text())
    told = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (small / "config.json").write_text(json.dumps(config | told))
    recipe = recipe_of(tmp_path, tiny_base, [*full("ada", "bea"), {"name": "cem", "base": str(small)}])
    with pytest.raises(SpartaError, match=f"^model cem: base {small} is quantised .awq in its config.json"):
        prepare_begin(StateDir(tmp_path / "state"), recipe)


# --- what is said


def test_different_tokenizers_in_one_pool_are_allowed_and_reported(
    tmp_path: Path, tiny_base: Path, other_base: Path
) -> None:
    same = notes(recipe_of(tmp_path, tiny_base, full("ada", "bea", "cem")))
    assert len(same) == 1 and same[0].startswith("on disk: 1 base, ")
    models = [*full("ada", "bea"), {"name": "cem", "base": str(other_base)}]
    recipe = recipe_of(tmp_path, tiny_base, models)
    check_pool(recipe)
    assert notes(recipe)[0] == (
        f"base {tiny_base} and base {other_base} have different tokenizers: responses are re-tokenized for training"
    )
    assert "on disk: 2 bases, " in notes(recipe)[-1] and "3 adapters, " in notes(recipe)[-1]


def test_a_run_goes_on_when_the_adapters_that_it_began_with_are_gone(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    models = []
    for name in ("ada", "bea", "cem"):
        shutil.copytree(tiny_adapters[name], tmp_path / name)
        models.append({"name": name, "adapter": str(tmp_path / name)})
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe_of(tmp_path, tiny_base, models))
    before = notes(run.recipe)
    for name in ("ada", "bea", "cem"):
        shutil.rmtree(tmp_path / name)
    assert begin_or_continue(run.state, None).recipe == run.recipe
    assert notes(run.recipe, adapters_of(run)) == before


def test_different_chat_templates_are_reported(tmp_path: Path, tiny_base: Path) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    config = other / "tokenizer_config.json"
    config.write_text(config.read_text().replace("assistant", "model"))
    models = [*full("ada", "bea"), {"name": "cem", "base": str(other)}]
    said, _ = notes(recipe_of(tmp_path, tiny_base, models))
    assert (
        said
        == f"base {tiny_base} and base {other} have different chat templates: each model is prompted with its own"
    )


def test_memory_is_estimated_once_for_members_with_equal_base_and_shapes(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], other_base: Path
) -> None:
    models = [
        {"name": "ada", "adapter": str(tiny_adapters["ada"])},
        {"name": "bea", "copy_of": "ada"},
        {"name": "cem", "base": str(other_base)},
        {"name": "dov", "base": str(other_base), "sft": {"data": "chats.jsonl"}},
    ]
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")

    def found_for(new_tokens: int) -> list[MemoryEstimate]:
        engine = {"kind": "hf", "device": "cuda", "context_length": 512}
        recipe = recipe_of(
            tmp_path, tiny_base, models, generation={"max_new_tokens": new_tokens}, engine=engine
        )
        return estimates(planned(StateDir(tmp_path / "state"), recipe))

    found = found_for(500)
    assert [(estimate.what, estimate.section) for estimate in found] == [
        (f"SFT of dov on {other_base}", "pool.sft"),
        (f"DPO of ada, bea on {tiny_base}", "dpo"),
        (f"DPO of cem, dov on {other_base}", "dpo"),
    ]
    # Of a pair no more than the context is ever made.
    assert any("2 x 512 tokens" in line for line in found[1].lines)
    activations = [
        {part.what: part.bytes for part in each.parts}["activations"]
        for each in (found_for(100)[1], found[1])
    ]
    assert activations[0] < activations[1]


# --- M^0


def test_a_full_model_becomes_its_base_with_a_new_adapter_and_a_copy_shares_its_originals(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], other_base: Path
) -> None:
    models = [
        {"name": "ada", "adapter": str(tiny_adapters["ada"])},
        {"name": "bea", "base": str(other_base)},
        {"name": "cem"},
        {"name": "twin", "copy_of": "bea"},
    ]
    recipe = recipe_of(tmp_path, tiny_base, models)
    states = [tmp_path / "one", tmp_path / "again"]
    for state in states:
        advance(begin_or_continue(StateDir(state), recipe), 0, upto="found")
    run = Run.open(StateDir(states[0]))
    pool = run.pool(0)
    assert pool == Run.open(StateDir(states[1])).pool(0)
    assert sorted(path.name for path in run.iteration(0).adapters.iterdir()) == ["ada", "bea", "cem"]
    assert (pool["twin"].adapter, pool["twin"].sha256) == (pool["bea"].adapter, pool["bea"].sha256)
    assert (pool["twin"].base, pool["cem"].base) == (str(other_base), str(tiny_base))
    assert pool["cem"].sha256 != pool["bea"].sha256
    members = references(run, 0)
    assert members["twin"].weights == members["bea"].weights


def test_the_scripted_engine_plays_with_full_models_too(tmp_path: Path) -> None:
    names = [{"name": f"model{n}"} for n in range(3)]
    run = begin(tmp_path, pool={"base": "none", "models": [*names, {"name": "twin", "copy_of": "model1"}]})
    advance(run, 1)
    first, second = run.pool(0), run.pool(1)
    assert first["twin"].adapter == first["model1"].adapter
    assert all(member.adapter == f"iter_01/adapters/{name}" for name, member in second.items())
