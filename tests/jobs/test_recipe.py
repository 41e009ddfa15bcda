"""jobs/recipe.py: a recipe with every key, the frozen one of a run, and what the keys are."""

import json
from pathlib import Path

import yaml
from support.scripted_run import advance, begin, sentence, typed, write_recipe

from sparta.recipes.load import load
from sparta.recipes.schema import Recipe


def test_a_recipe_is_shown_with_every_key_and_can_be_launched_as_it_is_shown(tmp_path: Path) -> None:
    done = typed("recipe", "show", "--recipe", "paper/gsm8k", "--set", "match.k=3", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    tree = yaml.safe_load(done.stdout)
    assert tree["match"]["k"] == 3 and set(tree) == set(Recipe.model_fields)
    (tmp_path / "shown.yaml").write_text(done.stdout)
    assert load(tmp_path / "shown.yaml") == load("paper/gsm8k", ["match.k=3"])


def test_a_preset_is_shown_with_the_values_that_it_fills_in(tmp_path: Path) -> None:
    done = typed("recipe", "show", "--set", "reputation.preset=authors", cwd=tmp_path)
    tree = yaml.safe_load(done.stdout)
    assert (tree["name"], tree["reputation"]["initial"], tree["reweighting"]["first_iteration"]) == (
        "toy",
        100.0,
        3,
    )


def test_the_frozen_recipe_of_a_run_is_shown(tmp_path: Path) -> None:
    run = begin(tmp_path, seed=11)
    done = typed("recipe", "show", run.state.root, "--set", "iterations=5")
    assert yaml.safe_load(done.stdout) == {**yaml.safe_load(run.recipe.to_yaml()), "iterations": 5}
    here = typed("recipe", "show", cwd=tmp_path)
    assert yaml.safe_load(here.stdout)["seed"] == 11, "the run in state/ of the working directory"


def test_a_derived_pool_is_shown_with_its_members_and_the_yaml_alone_on_standard_output(
    tmp_path: Path,
) -> None:
    ranking = "ranking: [model0, model1, model2, model3]"
    recipe = write_recipe(tmp_path)
    done = typed("recipe", "show", "--recipe", recipe, "--set", f"pool.derived={{{ranking}, spread: 3}}")
    assert done.returncode == 0, done.stderr
    pool = yaml.safe_load(done.stdout)["pool"]
    assert pool["derived"] is None and len(pool["models"]) == 3
    assert "model0" in done.stderr


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    assert "holds no run" in sentence(typed("recipe", "show", tmp_path / "none"))
    assert "did you mean toy?" in sentence(typed("recipe", "show", "--recipe", "toyy"))
    both = typed("recipe", "show", tmp_path, "--recipe", "toy")
    assert both.returncode == 2 and "are alternatives: leave one of them out" in both.stderr
    assert "unknown key combat; did you mean combats?" in sentence(
        typed("recipe", "show", "--set", "combat=1", cwd=tmp_path)
    )


def test_a_run_is_only_read(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    before = {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")}
    assert typed("recipe", "show", run.state.root).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")} == before


def test_the_schema_is_json_that_knows_extends() -> None:
    done = typed("recipe", "schema")
    assert {"extends", *Recipe.model_fields} == set(json.loads(done.stdout)["properties"])


def test_the_reference_of_the_keys_is_printed() -> None:
    done = typed("recipe", "docs")
    assert done.returncode == 0 and done.stdout.startswith("# The keys of recipes and cluster profiles\n")
