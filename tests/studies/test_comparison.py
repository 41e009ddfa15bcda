"""The table of a study shows no number that was not measured."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from support.scripted_run import typed
from support.study_runs import grid_of, write_study

from sparta.commands.study_tables import show_table
from sparta.errors import SpartaError
from sparta.evaluation.selection import INITIAL
from sparta.evaluation.summary import summary_file
from sparta.store import files
from sparta.studies.comparison import StudyTable, table_of
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import CellResult, manifest_of, result_of


def printed(table: StudyTable) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_table(console, table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def without_initial(result: CellResult) -> CellResult:
    kept = {
        task: [choice for choice in several if choice.what != INITIAL]
        for task, several in result.choices.items()
    }
    return msgspec.structs.replace(result, choices=kept)


def test_a_missing_initial_score_stays_missing_and_lost_scores_are_named(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0]})
    place, grid = StudyDir(tmp_path / "study"), grid_of(path)
    assert typed("study", path, "--state", place.root).returncode == 0
    result = result_of(place, "seed0")
    assert result is not None
    files.write_json(place.result("seed0"), without_initial(result))
    table = table_of(place, grid, manifest_of(place, grid))
    assert table.rows[0].initial == [None]
    scores, _, over_iterations = printed(table).partition("over iterations")
    [line] = [line for line in scores.splitlines() if line.strip().startswith("all ")]
    assert " - " in line
    # Without an initial score there is no gain.
    assert table.courses[0].gain is None and "+" not in over_iterations
    summary_file(place.cell("seed0")).rename(tmp_path / "moved.json")
    with pytest.raises(SpartaError, match="the cell seed0 was done with: score the cell again"):
        table_of(place, grid, manifest_of(place, grid))
