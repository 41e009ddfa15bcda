"""What a cell is asked to do, and when that is the same."""

from pathlib import Path

import pytest
import yaml
from pydantic import Field
from support.expert_recipes import write_school
from support.scripted_run import typed
from support.study_runs import grid_of, write_study

from sparta.errors import SpartaError
from sparta.recipes.schema import Evaluation, Recipe
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import freeze, manifest_of, request_of


class LaterEvaluation(Evaluation):
    """The settings of a later version."""

    more: int = Field(default=1)


def test_a_key_that_a_later_version_adds_leaves_cells_done(tmp_path: Path) -> None:
    grid = grid_of(write_study(tmp_path, {"seed": [0]}))
    [cell], study = grid.cells, grid.study
    recipe = cell.recipe
    values = {name: getattr(recipe.evaluation, name) for name in Evaluation.model_fields}
    later = recipe.model_copy(update={"evaluation": LaterEvaluation(**values)})
    assert request_of(later, study) == request_of(recipe, study)
    changed = recipe.model_copy(update={"evaluation": LaterEvaluation(**values, more=2)})
    assert request_of(changed, study) != request_of(recipe, study)
    fewer = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"test": 3})})
    assert request_of(fewer, study) != request_of(recipe, study)
    on_validation = study.model_copy(update={"compare_on": "validation"})
    assert request_of(recipe, on_validation) != request_of(recipe, study)


def test_a_study_with_trained_experts_may_move(tmp_path: Path) -> None:
    school = yaml.safe_load(write_school(tmp_path).read_text())
    path = write_study(tmp_path, {"seed": [0]}, recipe={"pool": school["pool"]})
    old, new = tmp_path / "old", tmp_path / "new"
    assert typed("study", path, "--state", old).returncode == 0
    old.rename(new)
    place, grid = StudyDir(new), grid_of(path, new)
    [model, *_] = grid.cells[0].recipe.pool.models
    assert model.adapter is not None and Path(model.adapter).is_relative_to(new)
    assert [cell.state for cell in manifest_of(place, grid).cells] == ["done"]
    freeze(place, grid, path.read_bytes())
    assert typed("study", new).returncode == 0
    # An expert of another pool is another setting.
    other = grid.with_recipes(
        lambda recipe: with_adapter(recipe, model.adapter.replace("m0-", "m0-0") if model.adapter else "")
    )
    with pytest.raises(SpartaError, match="began the cell seed0 with other settings"):
        freeze(place, other, path.read_bytes())


def with_adapter(recipe: Recipe, adapter: str) -> Recipe:
    first, *rest = recipe.pool.models
    models = (first.model_copy(update={"adapter": adapter}), *rest)
    return recipe.model_copy(update={"pool": recipe.pool.model_copy(update={"models": models})})
