"""The recipe: what is refused and how, what is laid over what, what makes two recipes the same run."""

from pathlib import Path

import pytest
import yaml
from support.scripted_run import rehearsal, sentence, typed, write_recipe

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.recipes.load import adjust, built_in, load, thaw
from sparta.recipes.schema import Recipe
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.prepared import Provenance
from sparta.tasks.registry import task_named

SMALL = {
    "name": "small",
    "pool": {"base": "none", "models": [{"name": name} for name in ("ada", "bea", "cem")]},
    "data": {"train": "prompts.jsonl"},
}


def written(folder: Path, tree: object, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def small(folder: Path, **changes: object) -> Recipe:
    return load(written(folder, {**SMALL, **changes}))


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"matching": {}}, "unknown key matching; did you mean match?"),
        ({"match": {"alfa": 0.5}}, "unknown key match.alfa; did you mean alpha?"),
        (
            {"reputation": {"deviation": {"windows": 3}}},
            "unknown key reputation.deviation.windows; did you mean window?",
        ),
        (
            {"pool": {"base": "none", "models": [{"name": "ada"}, {"name": "bea", "adaptor": "x"}]}},
            "unknown key pool.models.1.adaptor; did you mean adapter?",
        ),
        (
            {"engine": {"scripted": {"zzz": 1}}},
            "unknown key engine.scripted.zzz; known keys: delay, equal, unreadable",
        ),
        ({"match": {"alpha": 1.5}}, "match.alpha: input should be less than or equal to 1, not 1.5"),
        ({"match": {"alpha": -0.1}}, "match.alpha: input should be greater than or equal to 0, not -0.1"),
        ({"match": {"alpha": float("nan")}}, "match.alpha: input should be"),
        ({"match": {"k": 0}}, "match.k: input should be greater than or equal to 1, not 0"),
        ({"match": {"k": 2.5}}, "match.k: input should be a valid integer"),
        ({"match": 3}, "match: input should be"),
        ({"judging": {"mode": "loud"}}, "judging.mode: input should be 'text' or 'expected', not 'loud'"),
        ({"engine": {"scripted": {"unreadable": {"ada": 1.5}}}}, "engine.scripted.unreadable.ada: "),
        ({"reputation": "authors"}, "reputation: input should be a valid dictionary"),
        ({"reputation": {"preset": "authors"}, "reweighting": 3}, "reweighting: input should be"),
        ({"reputation": {"initial": 10, "floor": 20}}, "floor 20.0 is above the initial reputation 10.0"),
        ({"data": {}}, "set either data.task or data.train"),
        ({"data": {"task": "toy", "train": "x"}}, "set either data.task or data.train"),
        (
            {"data": {"task": "toy", "validation": "x"}},
            "data.validation and data.test belong to data.train: the task toy has its own",
        ),
        ({"data": {"train": "x", "test": "y"}}, "data.test needs data.validation"),
        (
            {"data": {"train": "x", "grading": "loud"}},
            "data.grading: input should be 'exact', 'number', 'math', 'letter', 'likelihood' or 'judge'",
        ),
        ({"evaluation": {"task": "toy"}}, "unknown key evaluation.task; did you mean tasks?"),
        ({"pool": {"models": SMALL["pool"]["models"]}}, "model ada has no base"),
        ({"pool": None}, "pool: input should be"),
        ({"name": ""}, "name: string should have at least 1 character"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_place(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError) as error:
        small(tmp_path, **changes)
    assert said in str(error.value)
    assert str(error.value).startswith(f"recipe {tmp_path / 'recipe.yaml'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "the pool has no model"),
        (["ada", "bea", "ada"], "two models are named ada"),
        (["ada", "bea", "../cem"], "'../cem' cannot be used in file names"),
        (["ada", "bea", "a/b"], "'a/b' cannot be used in file names"),
        (["ada", "bea", "a..b"], "'a..b' cannot be used in file names"),
        (["ada", "bea", "/etc/passwd"], "cannot be used in file names"),
        (["ada", "bea", ""], "cannot be used in file names"),
    ],
)
def test_a_pool_that_cannot_play_is_refused(names: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError) as error:
        small(tmp_path, pool={"base": "none", "models": [{"name": name} for name in names]})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML"),
        ("- 1\n- 2\n", "must be a mapping of keys to values, found list"),
        ("", "must be a mapping of keys to values, found NoneType"),
        ("name: x\n", "pool is missing"),
        ("name: x\nmatch: {k: 2, alpha: 0, k: 3}\n", "is not YAML: the key k is there twice in .*, line 2"),
        ("name: x\nseed: 1\nname: y\n", "is not YAML: the key name is there twice in .*, line 3"),
        pytest.param("name: " + "[" * 1000 + "]" * 1000, "nested too deeply", id="deep"),
        pytest.param("[" * 20000, "nested too deeply|not YAML", id="deeper"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpartaError, match=said) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SpartaError, match="cannot be read"):
        load(path)


def test_mappings_may_be_merged_and_overridden(tmp_path: Path) -> None:
    merged = yaml.safe_dump(SMALL) + "match: &one {k: 2, alpha: 0.1}\ngeneration: {temperature: 0.5}\n"
    path = written(
        tmp_path, merged.replace("generation", "reweighting: {<<: {gamma: 0.2}, gamma: 0.3}\ngeneration")
    )
    assert load(path).reweighting.gamma == 0.3


@pytest.mark.parametrize("value", ["[" * 2000 + "]" * 2000, "{a: 1, a: 2}"])
def test_a_setting_that_is_nested_too_deep_or_has_a_key_twice_is_a_sentence(
    value: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError, match=r"--set '?match=.*: the value is not YAML"):
        load(written(tmp_path, SMALL), [f"match={value}"])


def test_a_recipe_that_is_not_there_brings_up_the_nearest_name() -> None:
    with pytest.raises(SpartaError, match="there is no recipe toys: .* did you mean toy?"):
        load("toys")


def test_the_shipped_recipes_load() -> None:
    assert {"toy", "paper/gsm8k", "toy/spin"} <= set(built_in())
    for name in built_in():
        assert load(name).name


# --- what is laid over what


def test_a_setting_changes_one_value_and_leaves_its_neighbours(tmp_path: Path) -> None:
    path = written(tmp_path, {**SMALL, "match": {"alpha": 0.2}})
    recipe = load(path, ["match.k=3", "reputation.deviation.window=4", "name=other", "data.size=null"])
    assert (recipe.match.alpha, recipe.match.k, recipe.reputation.deviation.window) == (0.2, 3, 4)
    assert (recipe.name, recipe.data.size) == ("other", None)


def test_the_last_setting_of_a_key_counts(tmp_path: Path) -> None:
    assert load(written(tmp_path, SMALL), ["match.k=3", "match.k=4"]).match.k == 4


def test_a_setting_reaches_a_key_with_a_dash(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, SMALL), ["engine.scripted.unreadable.my-judge=0.5"])
    assert recipe.engine.scripted.unreadable == {"my-judge": 0.5}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("match.k", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("match..k=3", "write it as key=value"),
        ("match.k=[", "the value is not YAML"),
        ("match.kay=3", "unknown key match.kay"),
        ("match.k=", "match.k: input should be a valid integer, not None"),
        ("iterations=0", "iterations: input should be greater than or equal to 1, not 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError) as error:
        load(written(tmp_path, SMALL), [setting])
    assert said in str(error.value)


def test_a_recipe_says_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    written(tmp_path, {**SMALL, "match": {"k": 3, "alpha": 0.1}}, "base.yaml")
    written(tmp_path, {"extends": "base.yaml", "match": {"k": 4}}, "middle.yaml")
    recipe = load(written(tmp_path, {"extends": "middle", "name": "top"}))
    assert (recipe.name, recipe.match.k, recipe.match.alpha) == ("top", 4, 0.1)


def test_a_recipe_of_ones_own_extends_a_shipped_one_by_its_name(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, {"extends": "toy", "combats": 7}))
    assert recipe.combats == 7
    assert recipe.pool == load("toy").pool


def test_a_recipe_that_extends_itself_over_a_detour_is_refused(tmp_path: Path) -> None:
    written(tmp_path, {"extends": "recipe.yaml"}, "other.yaml")
    with pytest.raises(SpartaError, match="extends itself"):
        load(written(tmp_path, {"extends": "other.yaml"}))


def test_extending_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="there is no recipe nowhere.yaml"):
        load(written(tmp_path, {"extends": "nowhere.yaml"}))


def test_relative_paths_are_those_of_the_file_that_names_them(tmp_path: Path) -> None:
    models = [
        {"name": "ada", "adapter": "./a"},
        {"name": "bea", "base": "../b"},
        {"name": "cem", "base": "org/c"},
    ]
    (tmp_path / "deep").mkdir()
    base = {"name": "x", "pool": {"base": "./base", "models": models}, "data": {"train": "x.jsonl"}}
    written(tmp_path / "deep", base, "base.yaml")
    recipe = load(written(tmp_path, {"extends": "deep/base.yaml"}))
    assert recipe.pool.base == str(tmp_path / "deep/base")
    assert recipe.pool.models[0].adapter == str(tmp_path / "deep/a")
    assert recipe.pool.models[1].base == str(tmp_path / "b")
    assert recipe.pool.models[2].base == "org/c"
    assert recipe.data.train == str(tmp_path / "deep/x.jsonl")


def test_relative_paths_of_a_setting_are_those_of_the_person_who_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = load(written(tmp_path, SMALL), ["data.train=mine.jsonl", "pool.base=../base"])
    assert recipe.data.train == str(tmp_path / "here/mine.jsonl")
    assert recipe.pool.base == str(tmp_path / "base")


PATHS = {
    "data": {"train": "x.jsonl", "validation": "../v.jsonl", "test": "/t.jsonl", "folder": "sets"},
    "evaluation": {"judge": {"base": "./judge", "adapter": "org/adapter"}},
}


def test_paths_of_data_are_always_the_recipes_and_a_judge_is_found_like_a_model(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    recipe = load(written(tmp_path / "deep", {**SMALL, **PATHS}))
    assert recipe.data.train == str(tmp_path / "deep/x.jsonl")
    assert recipe.data.validation == str(tmp_path / "v.jsonl")
    assert recipe.data.test == "/t.jsonl"
    assert recipe.data.folder == str(tmp_path / "deep/sets")
    assert recipe.evaluation.judge is not None
    assert recipe.evaluation.judge.base == str(tmp_path / "deep/judge")
    assert recipe.evaluation.judge.adapter == "org/adapter"


def test_a_judge_may_be_taken_away_and_a_path_left_open(tmp_path: Path) -> None:
    base = written(tmp_path, {**SMALL, **PATHS}, "base.yaml")
    recipe = load(base, ["evaluation.judge=null", "data.folder=null"])
    assert recipe.evaluation.judge is None
    assert recipe.data.folder is None


# --- presets


def test_the_authors_preset_fills_what_is_not_given(tmp_path: Path) -> None:
    authors = small(tmp_path, reputation={"preset": "authors"})
    reputation = authors.reputation
    assert (reputation.initial, reputation.floor, reputation.kappa.start) == (100.0, 10.0, 10.0)
    assert (reputation.update, reputation.labels, reputation.omega) == ("sequential", "final", "contestants")
    assert (reputation.deviation.unit, reputation.deviation.ddof) == ("combat", 0)
    assert (authors.reweighting.first_iteration, authors.reweighting.last_iteration) == (3, 8)
    assert authors.match.first == "balanced"
    paper = small(tmp_path)
    assert (paper.reputation.initial, paper.reweighting.first_iteration) == (1000.0, 2)
    assert (paper.match.first, paper.reweighting.last_iteration) == ("uniform", None)
    assert (authors.judging.equal, paper.judging.equal) == ("judge", "skip")


def test_what_is_given_beside_a_preset_counts(tmp_path: Path) -> None:
    recipe = small(
        tmp_path,
        reputation={"preset": "authors", "initial": 50, "deviation": {"ddof": 1}},
        reweighting={"first_iteration": 2, "gamma": 0.2},
    )
    assert (recipe.reputation.initial, recipe.reputation.deviation.ddof) == (50.0, 1)
    assert recipe.reputation.deviation.unit == "combat"
    assert (recipe.reweighting.first_iteration, recipe.reweighting.gamma) == (2, 0.2)
    assert (
        small(
            tmp_path, reputation={"preset": "authors"}, reweighting={"gamma": 0.3}
        ).reweighting.first_iteration
        == 3
    )


def test_a_preset_cannot_be_changed_where_every_value_is_given_already(tmp_path: Path) -> None:
    recipe = small(tmp_path)
    with pytest.raises(SpartaError, match="name the recipe file again with --recipe"):
        adjust(recipe, ["reputation.preset=authors"])
    assert adjust(recipe, ["reputation.preset=paper", "match.k=2"]).match.k == 2


def test_with_frozen_reputations_no_judge_is_weighted_down_unless_it_is_asked_for_by_name(
    tmp_path: Path,
) -> None:
    still = small(tmp_path, reputation={"frozen": True})
    assert not still.reweighting.enabled
    assert "no judge is down-weighted" in still.remarks[0]
    named = small(tmp_path, reputation={"frozen": True}, reweighting={"enabled": True})
    assert named.reweighting.enabled
    assert "draws the judge to down-weight at random" in named.remarks[0]
    assert small(tmp_path).reweighting.enabled and not small(tmp_path).remarks
    assert small(tmp_path, reputation={"frozen": True, "preset": "authors"}).reweighting.last_iteration == 8
    with pytest.raises(SpartaError, match=r"reputation\.frozen: input should be a valid boolean, not 'true'"):
        small(tmp_path, reputation={"frozen": "true"})


def test_a_branch_that_freezes_reputations_or_thaws_them_has_its_reweighting_follow(tmp_path: Path) -> None:
    moving = small(tmp_path)
    still = adjust(moving, ["reputation.frozen=true"])
    assert not still.reweighting.enabled
    assert adjust(still, ["reputation.frozen=false"]).reweighting.enabled
    assert adjust(moving, ["reputation.frozen=true", "reweighting.enabled=true"]).reweighting.enabled
    ablated = small(tmp_path, reweighting={"enabled": False})
    assert not adjust(ablated, ["match.k=2"]).reweighting.enabled


# --- what makes two recipes the same run


def frozen(folder: Path, recipe: Recipe) -> Recipe:
    path = folder / "frozen.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return thaw(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reputation": {"preset": "authors"}},
        {"reputation": {"preset": "authors", "floor": 3.3}, "reweighting": {"first_iteration": 1}},
        {"judging": {"mode": "expected", "labels": ["a", "b", "ü"]}, "dpo": {"learning_rate": 1e-7}},
        {"engine": {"scripted": {"unreadable": {"ada": 1 / 3}}}, "name": "name: with, signs # and ü"},
    ],
)
def test_a_recipe_is_the_same_after_freezing(changes: dict[str, object], tmp_path: Path) -> None:
    recipe = small(tmp_path, **changes)
    assert frozen(tmp_path, recipe) == recipe
    assert frozen(tmp_path, recipe).hash == recipe.hash


def test_the_toy_recipe_is_the_same_after_freezing(tmp_path: Path) -> None:
    assert frozen(tmp_path, load("toy")) == load("toy")


HOW = [
    "iterations=9",
    "cluster.kind=local",
    "cluster.at_once=3",
    "engine.batch_tokens=10",
    "engine.threads=1",
    "engine.device=cpu",
    "engine.attention=eager",
    "engine.api.max_completion_tokens=true",
    "dpo.liger=true",
    "engine.scripted.delay=0.1",
    "dpo.save_updates=7",
    "evaluation.test=5",
    "evaluation.tasks=[toy]",
    "data.folder=elsewhere",
    "data.grading=number",
    "data.validation=more.jsonl",
]
WHAT = [
    "seed=1",
    "combats=13",
    "match.k=2",
    "judging.retries=0",
    "judging.equal=judge",
    "judging.labels=[a, b]",
    "pool.models=[{name: ada}, {name: bea}, {name: dea}]",
    "data.size=5",
    "engine.dtype=float16",
    "engine.quantize=nf4",
    "dpo.optimizer=adamw_8bit",
    "pool.sft.optimizer=paged_adamw_8bit",
    "engine.context_length=99",
    "dpo.beta=0.2",
    "reputation.floor=2",
    "reweighting.enabled=false",
    "reweighting.last_iteration=8",
    "match.first=balanced",
    "preferences.min_margin=1",
    "generation.top_k=0",
]


@pytest.mark.parametrize("setting", HOW)
def test_how_a_run_is_carried_out_is_not_part_of_what_it_is(setting: str, tmp_path: Path) -> None:
    recipe = small(tmp_path)
    other = adjust(recipe, [setting])
    assert other != recipe
    assert other.hash == recipe.hash
    assert recipe.differences(other) == []


@pytest.mark.parametrize("setting", WHAT)
def test_what_could_change_a_result_is_part_of_what_a_run_is(setting: str, tmp_path: Path) -> None:
    recipe = small(tmp_path)
    other = adjust(recipe, [setting])
    assert other.hash != recipe.hash
    assert len(recipe.differences(other)) == 1


def test_guessing_tokens_is_part_of_what_a_run_is_with_any_number_of_them(tmp_path: Path) -> None:
    recipe = small(tmp_path)
    guessing = [adjust(recipe, [f"engine.vllm.speculative={{tokens: {count}}}"]) for count in (1, 16)]
    assert len({one.hash for one in (recipe, *guessing)}) == 3
    assert adjust(guessing[0], ["engine.vllm.speculative=null"]) == recipe


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["engine.quantize=fp4"], "engine.quantize: input should be 'nf4'"),
        (
            ["engine.quantize=nf4", "cluster.gpus_per_training=2"],
            "(engine.quantize) is not divided over GPUs",
        ),
        (["engine.attention=flash"], "engine.attention: input should be 'auto', 'sdpa', 'eager'"),
        (
            ["engine.attention=flash_attention_2", "engine.dtype=float32"],
            "half precision, but engine.dtype is",
        ),
        (
            ["engine.quantize=nf4", "engine.kind=vllm", "engine.dtype=float32"],
            "half precision, but engine.dtype",
        ),
        (["dpo.optimizer=adamw8bit"], "dpo.optimizer: input should be 'adamw', 'adamw_8bit'"),
        (
            ["engine.vllm.speculative={tokens: 2}", "judging.mode=expected", "engine.kind=auto"],
            "vLLM cannot score labels while it guesses tokens: set engine.vllm.speculative to null",
        ),
        (["engine.vllm.speculative={tokens: 17}"], "less than or equal to 16"),
        (["engine.vllm.speculative={tokens: 0}"], "greater than or equal to 1"),
        (["engine.vllm.speculative={}"], "engine.vllm.speculative.tokens"),
        (["engine.vllm.speculative={tokens: 2, method: eagle}"], "'ngram'"),
    ],
)
def test_knobs_are_bounded(settings: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError) as caught:
        adjust(small(tmp_path), settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_differences_name_key_old_and_new_value(tmp_path: Path) -> None:
    recipe = small(tmp_path)
    other = adjust(recipe, ["match.k=3", "engine.scripted.unreadable.ada=0.5", "judging.labels=[x, y]"])
    assert recipe.differences(other) == [
        "engine.scripted.unreadable: {}, now absent",
        "engine.scripted.unreadable.ada: absent, now 0.5",
        f"judging.labels: {list('0123456789')}, now ['x', 'y']",
        "match.k: 5, now 3",
    ]
    shorter = adjust(recipe, ["pool.models=[{name: ada}, {name: bea}, {name: cem}, {name: dea, adapter: x}]"])
    assert "pool.models.3.name: absent, now dea" in recipe.differences(shorter)


# --- from a person's keyboard

BAD = {
    "an unknown key": (["--set", "match.alfa=1"], "unknown key match.alfa; did you mean alpha?"),
    "alpha above 1": (
        ["--set", "match.alpha=1.5"],
        "match.alpha: input should be less than or equal to 1, not 1.5",
    ),
    "k below 1": (["--set", "match.k=0"], "match.k: input should be greater than or equal to 1, not 0"),
    "no iterations": (["--iters", "0"], "iterations: input should be greater than or equal to 1, not 0"),
    "a pool of two": (
        ["--set", "pool.models=[{name: a}, {name: b}]"],
        "the pool has 2 models, but the method sparta needs at least 3",
    ),
    "two of one name": (["--set", "pool.models=[{name: a}, {name: b}, {name: a}]"], "two models are named a"),
    "a name with ..": (
        ["--set", "pool.models=[{name: a}, {name: b}, {name: ../c}]"],
        "'../c' cannot be used",
    ),
    "a name that is a path": (
        ["--set", "pool.models=[{name: a}, {name: b}, {name: /c}]"],
        "'/c' cannot be used",
    ),
    "half a setting": (["--set", "match.k"], "write it as key=value"),
    "a fork from nowhere": (["--fork", "elsewhere"], "--fork needs the iteration to branch from"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_launch_refuses_it_in_one_sentence_and_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path)
    done = typed("launch", "--recipe", path, "--state", tmp_path / "state", *arguments)
    assert said in sentence(done)
    assert "\n" not in sentence(done)
    assert not (tmp_path / "state").exists()


UNSCORABLE = {
    "a task that there is not": (
        {"evaluation": {"tasks": ["toyy"]}},
        "there is no task toyy; did you mean toy?",
    ),
    "a task to align on that there is not": (
        {"data": {"task": "gsm8"}},
        "there is no task gsm8; did you mean gsm8k?",
    ),
    "a task that is not prepared": (
        {"evaluation": {"tasks": ["toy", "gsm8k"]}, "data": {"train": "prompts.jsonl", "folder": "none"}},
        "the data of gsm8k is not prepared in {tmp}/none: run python jobs/prepare_data.py gsm8k --folder {tmp}/none",
    ),
    "a task to align on that is not prepared": (
        {"data": {"task": "gsm8k", "folder": "none"}},
        "the data of gsm8k is not prepared in {tmp}/none: run",
    ),
    "a split that is missing": (
        {"evaluation": {"tasks": ["gsm8k"]}, "data": {"train": "prompts.jsonl", "folder": "some"}},
        "gsm8k has no validation split in {tmp}/some: ask its authors; then run python jobs/prepare_data.py gsm8k",
    ),
    "files of one's own that are not named": (
        {"evaluation": {"tasks": ["own"]}},
        "the task own has no validation split: set data.validation",
    ),
    "a file of one's own that is not there": (
        {"data": {"train": "prompts.jsonl", "validation": "none.jsonl"}},
        "{tmp}/none.jsonl cannot be read",
    ),
    "a file of one's own that is learned from": (
        {"data": {"train": "prompts.jsonl", "validation": "prompts.jsonl"}},
        "prompts.jsonl, line 1 asks the same as {tmp}/prompts.jsonl, line 1",
    ),
    "a test of one's own without answers": (
        {"data": {"train": "prompts.jsonl", "validation": "good.jsonl", "test": "bad.jsonl"}},
        "{tmp}/bad.jsonl, line 1: p000001 has no answer",
    ),
}


@pytest.mark.parametrize(("changes", "said"), UNSCORABLE.values(), ids=UNSCORABLE.keys())
def test_launch_refuses_what_could_not_be_scored_later(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, **changes)
    (tmp_path / "good.jsonl").write_text('{"prompt": "good?", "answer": "yes"}')
    (tmp_path / "bad.jsonl").write_text('{"prompt": "bad?"}')
    prepare_without_validation(tmp_path / "some")
    for dry in ([], ["--dry-run"]):
        done = typed("launch", "--recipe", path, "--state", tmp_path / "state", *dry)
        assert said.format(tmp=tmp_path) in sentence(done)
        assert not (tmp_path / "state" / "run.json").exists()


def prepare_without_validation(folder: Path) -> None:
    source = Provenance("gsm8k", "local", "MIT", {}, {}, (), {"validation": "ask its authors"})
    item = Item("a", (Message("user", "1 + 1?"),), answer="2")
    prepared.write(folder, task_named("gsm8k"), {"train": [item]}, source)


def test_data_and_models_that_lie_where_runs_live_do_not_stand_in_the_way_of_one(tmp_path: Path) -> None:
    prepare_without_validation(tmp_path / "state" / "datasets")
    (tmp_path / "state" / "models" / "base").mkdir(parents=True)
    done = typed("launch", "--recipe", write_recipe(tmp_path), "--state", tmp_path / "state", "--iters", 1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("recipe", "said"), [("toys", "did you mean toy?"), ("{tmp}/bad.yaml", "bad.yaml is not YAML")]
)
def test_launch_refuses_a_recipe_it_cannot_read(recipe: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    done = typed("launch", "--recipe", recipe.format(tmp=tmp_path), "--state", tmp_path / "state")
    assert said in sentence(done)
    assert not (tmp_path / "state").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    done = typed("launch", "--recipe", tmp_path / "recipe.yaml", "--state", tmp_path / "state", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert recipe.name in done.stdout
    assert not (tmp_path / "state").exists()


def test_the_hash_leaves_out_what_has_its_default_so_that_a_new_key_changes_no_old_run(
    tmp_path: Path,
) -> None:
    recipe = rehearsal(tmp_path)
    assert adjust(recipe, ["match.k=5", "dpo.beta=0.1"]).hash == recipe.hash
    assert adjust(recipe, ["match.k=4"]).hash != recipe.hash
    assert adjust(recipe, ["iterations=9", "cluster.tasks=3"]).hash == recipe.hash


def test_a_folder_beside_the_recipe_is_found_without_a_leading_dot(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    tree = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    tree["pool"]["models"][0]["adapter"] = "adapters/model0"
    adapter = load(written(tmp_path, tree)).pool.models[0].adapter
    assert adapter == str(tmp_path / "adapters" / "model0")


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        (["engine.kind=vllm"], True),
        (["engine.kind=vllm", "cluster.kind=inline"], False),
        (["engine.kind=auto", "cluster.kind=slurm"], True),
        (["engine.kind=auto"], False),
        (["engine.kind=hf", "cluster.kind=slurm"], False),
        (["engine.kind=vllm", "cluster.fused=false"], False),
        (["engine.kind=hf", "cluster.fused=true"], True),
    ],
    ids=str,
)
def test_generating_and_judging_share_one_array_where_tasks_start_vllm(
    changes: list[str], fused: bool
) -> None:
    assert load("toy", changes).fused is fused
