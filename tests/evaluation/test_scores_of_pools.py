"""A pool derived from another run's scores: read, chosen, reported and frozen; refused if scores are missing or changed."""

from pathlib import Path

import pytest
import yaml
from support.scripted_run import begin, sentence, typed, write_adapter, write_recipe

from sparta.errors import SpartaError
from sparta.evaluation.derived_pool import resolved
from sparta.evaluation.summary import Scale, TaskScores, merge_into_summary
from sparta.recipes.load import load
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run

SCORES: dict[str, float | None] = {
    "model0": 0.25,
    "model1": 0.75,
    "model2": 0.25,
    "model3": 0.5,
    "model4": 0.25,
    "model5": 0.0,
}
"""Ranked: 1, 3, and 0, 2, 4 by name, 5."""
DATA = {"data": {"task": "toy", "size": 30}, "evaluation": {"validation": 4, "test": 4}}


def scored(
    folder: Path, scores: dict[str, float | None] = SCORES, task: str = "toy", **changes: object
) -> Run:
    """A run whose initial pool has these validation scores."""
    folder.mkdir(parents=True, exist_ok=True)
    run = begin(folder, models=6, **{**DATA, **changes})
    summed_up(run, scores, task)
    return run


def summed_up(run: Run, scores: dict[str, float | None], task: str = "toy") -> None:
    validation = {f"iter_00-{name}": score for name, score in scores.items()}
    fresh = TaskScores([Scale("accuracy", 1.0)], {"validation": 4}, "chat-64", validation)
    merge_into_summary(run.state, {task: fresh})


def study(folder: Path, **derived: object) -> Path:
    """A recipe with the pool of such runs, derived."""
    path = write_recipe(folder, models=6)
    tree = yaml.safe_load(path.read_text())
    tree["pool"]["derived"] = derived
    path.write_text(yaml.safe_dump(tree))
    return path


def names(recipe: Recipe) -> list[str]:
    return [model.name for model in recipe.pool.models]


def test_members_are_chosen_by_validation_score_and_reported(tmp_path: Path) -> None:
    run, said = scored(tmp_path / "scored"), list[str]()
    made = resolved(load(study(tmp_path, spread=3, scores=str(run.state.root))), said.append)
    assert names(made) == ["model0", "model1", "model5"]
    assert made.pool.derived is None
    [told] = said
    head, *lines = told.splitlines()
    assert head == (
        f"Derived pool: 3 of 6 models; ranks evenly spread; ranked by the validation split of toy in {run.state.root} (accuracy)."
    )
    assert [line.split(maxsplit=4) for line in lines] == [
        ["1", "of", "6", "75.0%", "model1 (the best)"],
        ["3", "of", "6", "25.0%", "model0"],
        ["6", "of", "6", "0.0%", "model5 (the last)"],
    ]


def test_a_repeated_pool_says_how_often_and_by_which_seed(tmp_path: Path) -> None:
    ranking, said = [f"model{n}" for n in (4, 0, 1, 2, 3, 5)], list[str]()
    recipe = load(study(tmp_path, repeat=2, ranking=ranking), ["seed=3"])
    made = resolved(recipe, said.append)
    [other] = {model.copy_of for model in made.pool.models} - {None, "model4"}
    assert len(made.pool.models) == 6
    rank = ranking.index(str(other)) + 1
    [told] = said
    assert told.splitlines() == [
        "Derived pool: 2 of 6 models, 3 times each; the best, and others sampled with seed 3; ranked by pool.derived.ranking.",
        "    1 of 6  model4 (the best)",
        f"    {rank} of 6  {other} (sampled)",
    ]
    assert resolved(made, said.append) is made and len(said) == 1


def test_a_score_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    run = begin(tmp_path, models=6, **DATA)
    recipe = load(study(tmp_path, spread=3, scores=str(run.state.root)))
    with pytest.raises(SpartaError) as refused:
        resolved(recipe)
    said = str(refused.value)
    assert "no validation score of model0, model1, model2, model3, model4, model5 on toy" in said
    _, command, arguments = said.partition("python jobs/evaluate.py ")
    assert command and typed("evaluate", *arguments.split()).returncode == 0
    assert not (run.state.evals / "looks.jsonl").exists()
    # Scripted answers are never right: all the same, so by name.
    assert names(resolved(recipe)) == ["model0", "model2", "model5"]

    summed_up(run, {**SCORES, "model2": None})
    with pytest.raises(SpartaError, match="no validation score of model2 on toy"):
        resolved(recipe)


def test_for_a_run_with_several_tasks_one_must_be_named(tmp_path: Path) -> None:
    evaluation = {"tasks": ["toy", "gsm8k"], "validation": 4}
    run = begin(tmp_path, models=6, data=DATA["data"])
    tree = yaml.safe_load(run.state.recipe_yaml.read_text())
    run.state.recipe_yaml.write_text(yaml.safe_dump({**tree, "evaluation": evaluation}))
    summed_up(run, SCORES)
    summed_up(run, {name: 1 - (score or 0) for name, score in SCORES.items()}, "gsm8k")
    path = study(tmp_path, spread=3, scores=str(run.state.root))
    with pytest.raises(SpartaError, match=r"is scored on toy, gsm8k: set pool\.derived\.task"):
        resolved(load(path))
    assert names(resolved(load(path, ["pool.derived.task=toy"]))) == ["model0", "model1", "model5"]
    assert names(resolved(load(path, ["pool.derived.task=gsm8k"]))) == ["model1", "model2", "model5"]


def test_scores_are_of_a_run_with_this_pool(tmp_path: Path) -> None:
    path = study(tmp_path, spread=3, scores="nowhere")
    with pytest.raises(SpartaError, match=rf"pool\.derived\.scores: {tmp_path}/nowhere holds no run"):
        resolved(load(path))
    (tmp_path / "other").mkdir()
    other = begin(tmp_path / "other", models=4, **DATA)
    with pytest.raises(SpartaError, match="has no model4, model5"):
        resolved(load(path, [f"pool.derived.scores={other.state.root}"]))


def test_scores_of_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    run = scored(tmp_path / "scored")
    write_adapter(tmp_path / "adapters" / "model4", seed=44)
    recipe = load(study(tmp_path, spread=3, scores=str(run.state.root)))
    with pytest.raises(SpartaError, match=rf"in {run.state.root}, model4 began with other weights"):
        resolved(recipe)


def test_a_launch_freezes_the_members_and_the_same_command_goes_on_while_the_scores_are_the_same(
    tmp_path: Path,
) -> None:
    run = scored(tmp_path / "scored")
    recipe = study(tmp_path, repeat=2, scores="scored/state")
    state = StateDir(tmp_path / "study")
    launch = ("launch", "--recipe", recipe, "--state", state.root, "--iters", 1, "--set", "combats=4")

    rehearsed = typed(*launch, "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "1 of 6    75.0%  model1 (the best)" in rehearsed.stdout and "(sampled)" in rehearsed.stdout
    assert not state.root.exists()

    done = typed(*launch)
    assert done.returncode == 0, done.stderr
    assert "model1 (the best)" in done.stdout
    frozen = Run.open(state)
    assert frozen.recipe.pool.derived is None
    assert {"model1", "model1-2", "model1-3"} <= set(frozen.models) and len(frozen.models) == 6
    assert "nothing to do" in typed(*launch).stdout
    assert "nothing to do" in typed("launch", "--state", state.root).stdout

    summed_up(run, {**SCORES, "model1": 0.0, "model5": 1.0})
    said = sentence(typed(*launch))
    assert "was started with another recipe" in said and "pool.models" in said and "model5" in said
    assert "nothing to do" in typed("launch", "--state", state.root).stdout
