"""What a cell is asked to do, as a digest."""

from pathlib import Path

from pydantic import Field
from support.study_runs import grid_of, write_study

from sparta.recipes.schema import Evaluation
from sparta.studies.manifest import request_of


class LaterEvaluation(Evaluation):
    """The settings of a later version."""

    more: int = Field(default=1)


def test_a_key_that_a_later_version_adds_leaves_cells_done(tmp_path: Path) -> None:
    [cell] = grid_of(write_study(tmp_path, {"seed": [0]})).cells
    recipe = cell.recipe
    values = {name: getattr(recipe.evaluation, name) for name in Evaluation.model_fields}
    later = recipe.model_copy(update={"evaluation": LaterEvaluation(**values)})
    assert request_of(later, "all", "each") == request_of(recipe, "all", "each")
    changed = recipe.model_copy(update={"evaluation": LaterEvaluation(**values, more=2)})
    assert request_of(changed, "all", "each") != request_of(recipe, "all", "each")
    fewer = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"test": 3})})
    assert request_of(fewer, "all", "each") != request_of(recipe, "all", "each")
