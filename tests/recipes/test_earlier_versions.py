"""Runs of earlier versions go on as they began: a key that they lack, or that is filled in otherwise by now, has what they did."""

from pathlib import Path

import pytest
import yaml
from support.scripted_run import manifests, typed, write_recipe

from sparta.arena.rules import overlay
from sparta.errors import SpartaError
from sparta.recipes.load import load, thaw
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir

SMALL = {
    "name": "small",
    "pool": {"base": "none", "models": [{"name": name} for name in ("ada", "bea", "cem")]},
    "data": {"task": "toy"},
}
LACKING = ("reweighting.last_iteration", "judging.equal")
"""Keys that a version lacked, which froze recipes with the hashes below."""
NAMED: dict[str, object] = {
    "reweighting": {"enabled": True, "last_iteration": None},
    "judging": {"equal": "judge"},
}
FILLED = {"match": {"first": "uniform"}, "reweighting": {"enabled": True}}
"""What it filled in whatever the section reputation said."""
HASHES = {
    "paper": ({}, "798c0c3fdb80bd26c9d8df6d7b69f899801e2c13e4e2754d94f5c065dc50f98b"),
    "authors": ({"preset": "authors"}, "96cad5d82e82a3cc2c5b886c85804f29f721cc82de6d3f3c3333496b74af6fd9"),
    "frozen": ({"frozen": True}, "8ab6df8588b98f069a009aae2313dc79c53ba3236bed5ce7b4a324cbad042ed5"),
}


def as_frozen_then(recipe: Recipe) -> str:
    """recipe.yaml as that version wrote it."""
    tree = overlay(recipe.model_dump(mode="json"), FILLED)
    for key in LACKING:
        section, name = key.split(".")
        del tree[section][name]
    return yaml.safe_dump(tree, sort_keys=False)


def recipe_file(folder: Path, tree: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(("reputation", "known"), HASHES.values(), ids=HASHES.keys())
def test_a_recipe_frozen_then_is_the_recipe_it_was(
    reputation: dict[str, object], known: str, tmp_path: Path
) -> None:
    path = recipe_file(tmp_path, {**SMALL, "reputation": reputation})
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(as_frozen_then(load(path)))
    recipe = thaw(frozen)
    assert recipe.hash == known
    assert (recipe.match.first, recipe.reweighting.enabled) == ("uniform", True)
    assert (recipe.reweighting.last_iteration, recipe.judging.equal) == (None, "judge")
    assert load(path, begun=recipe) == recipe, "the same command goes on with it"
    assert load(path, ["match.first=balanced"], begun=recipe).match.first == "balanced"


@pytest.mark.parametrize("reputation", [value for value, _ in HASHES.values()], ids=HASHES.keys())
def test_a_state_begun_then_goes_on_by_the_same_command_and_its_own_rules(
    reputation: dict[str, object], tmp_path: Path
) -> None:
    plain = write_recipe(tmp_path, reputation=reputation)
    # Said by name, it is what that version did.
    named = tmp_path / "named.yaml"
    named.write_text(yaml.safe_dump(overlay(yaml.safe_load(plain.read_text()), {**FILLED, **NAMED})))
    state, whole = tmp_path / "state", tmp_path / "whole"
    assert typed("launch", "--recipe", named, "--state", whole, "--iters", 3).returncode == 0
    assert typed("launch", "--recipe", named, "--state", state, "--iters", 1).returncode == 0
    frozen = StateDir(state).recipe_yaml
    frozen.write_text(as_frozen_then(thaw(frozen)))
    done = typed("launch", "--recipe", plain, "--state", state, "--iters", 3)
    assert done.returncode == 0, done.stderr
    assert manifests(state) == manifests(whole)


def test_what_a_run_of_today_has_by_its_preset_is_no_reason_to_refuse_the_same_command(
    tmp_path: Path,
) -> None:
    path = recipe_file(tmp_path, {**SMALL, "reputation": {"preset": "authors"}})
    begun = load(path)
    assert load(path, begun=begun) == begun
    assert begun.match.first == "balanced"


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ((), HASHES["paper"][1]),
        (
            ("dpo.gradient_checkpointing=true",),
            "2e3c1dfe22ed49af30a663a502e644c53e9df3d22db68ffa498ee1a6404ef603",
        ),
        (
            ("dpo.gradient_checkpointing=true", "pool.sft.gradient_checkpointing=false"),
            "ceb3134aa6fb3653586e76f0019890ba0fb098d29e8b5d48ed77f9595e592939",
        ),
    ],
)
def test_gradient_checkpointing_was_part_of_the_identity_and_may_change_now(
    settings: tuple[str, ...], known: str, tmp_path: Path
) -> None:
    path = recipe_file(tmp_path, SMALL)
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(as_frozen_then(load(path, settings)))
    begun = thaw(frozen)
    assert begun.is_hashed_as(known)
    now = load(path, ["dpo.gradient_checkpointing=false"], begun=begun)
    assert begun.differences(now) == [] and now.is_hashed_as(known)
    other = load(path, [*settings, "dpo.beta=0.2"], begun=begun)
    assert not other.is_hashed_as(known)


def test_gradient_checkpointing_is_auto_on_or_off(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, SMALL)
    assert load(path).dpo.gradient_checkpointing == load(path).pool.sft.gradient_checkpointing == "auto"
    for given, value in (("auto", "auto"), ("true", True), ("false", False)):
        assert load(path, [f"dpo.gradient_checkpointing={given}"]).dpo.gradient_checkpointing is value or (
            given == "auto"
        )
    for wrong in ("2", "sometimes", "null", "[true]"):
        with pytest.raises(SpartaError, match=r"dpo\.gradient_checkpointing: is auto, true or false, not"):
            load(path, [f"dpo.gradient_checkpointing={wrong}"])
