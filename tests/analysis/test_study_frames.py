"""Frames and tables of a study: its cells, levels and seeds, from the manifest and the states."""

import shutil
from pathlib import Path

import msgspec
import pytest

from analysis import frames
from analysis.catalogue import FIGURES
from analysis.drawing import save
from analysis.paper_figures import by_level
from analysis.paper_tables import table1, table3, table7
from analysis.pieces import Absent
from analysis.scoreboard import scoreboard
from analysis.study_headline import level_gains
from sparta.errors import SpartaError
from sparta.evaluation.selection import INITIAL
from sparta.evaluation.summary import read_summary, summary_file
from sparta.recipes.load import thaw
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import CellEntry, StudyManifest

TASKS = ("gsm8k", "medqa")


def write_study(
    folder: Path,
    state: Path,
    axis: str,
    levels: dict[str, float],
    trained_on: str = "gsm8k",
    initial_too: bool = False,
) -> Path:
    """A study whose cells are copies of one run; the test scores of the summary are moved by a level's number and, for seed 1, by a hundredth.

    initial_too: whether the level's number also moves the scores of the initial models.
    """
    place, cells = StudyDir(folder), []
    for level, shift in levels.items():
        for seed in (0, 1):
            name = f"{level}-seed{seed}"
            cells.append(
                CellEntry(
                    name, {axis: level, "seed": str(seed)}, f"cells/{name}", "x", "sparta", seed, "", "done"
                )
            )
            target = place.cell(name).root
            shutil.copytree(state, target, ignore=shutil.ignore_patterns("jobs", "adapters"))
            recipe = thaw(target / "recipe.yaml")
            recipe = recipe.model_copy(
                update={"data": recipe.data.model_copy(update={"task": trained_on, "train": None})}
            )
            (target / "recipe.yaml").write_text(recipe.to_yaml())
            summary = read_summary(StateDir(target))
            tasks = {}
            for task in TASKS:
                scores = summary.tasks[task]
                choices = [
                    msgspec.structs.replace(
                        choice,
                        test={
                            metric: msgspec.structs.replace(
                                test,
                                mean=(test.mean or 0)
                                + (shift if initial_too or choice.what != INITIAL else 0)
                                + seed / 100,
                            )
                            for metric, test in choice.test.items()
                        },
                    )
                    for choice in scores.choices
                ]
                tasks[task] = msgspec.structs.replace(scores, choices=choices)
            files.write_json(summary_file(StateDir(target)), msgspec.structs.replace(summary, tasks=tasks))
    waiting = CellEntry("late-seed0", {axis: "late", "seed": "0"}, "cells/late-seed0", "x", "sparta", 0, "")
    first = next(iter(levels))
    axes = {axis: [*levels, "late"], "seed": ["0", "1"]}
    manifest = StudyManifest(1, "mini", "", "", None, "all", axes, (axis, first), [], [*cells, waiting])
    files.write_json(place.manifest, manifest)
    return folder


@pytest.fixture(scope="module")
def study(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    levels = {"sparta": 0.0, "no_top_k": -0.2, "spin": -0.1}
    return write_study(tmp_path_factory.mktemp("study"), state, "method", levels)


@pytest.fixture(scope="module")
def cells(study: Path) -> frames.Frames:
    return frames.load(study)


def test_rows_say_of_which_cell_level_and_seed_they_are(cells: frames.Frames, found: frames.Frames) -> None:
    assert cells.before == ("run", "seed", "axis_method", "axis_seed")
    assert list(cells.standings.columns[:5]) == [*cells.before, "iteration"]
    assert cells.waiting == ("late-seed0",)
    counted = cells.combats.groupby("axis_method", observed=True).size()
    assert counted.to_dict() == dict.fromkeys(("sparta", "no_top_k", "spin"), 2 * len(found.combats))
    mine = cells.standings[(cells.standings.axis_method == "spin") & (cells.standings.seed == 1)]
    assert mine.reputation.tolist() == found.standings.reputation.tolist()
    assert cells.runs.seed.tolist() == [0, 1] * 3 and set(cells.runs.task) == {"gsm8k"}


def test_rows_of_the_table_are_levels_with_their_mean_over_seeds(
    cells: frames.Frames, found: frames.Frames
) -> None:
    one = table1(found).frame
    table = table1(cells)
    assert table.frame.index.name == "method"
    assert list(table.frame.index) == ["best initial model", "sparta", "no_top_k", "spin"]
    for level, shift in (("sparta", 0.0), ("no_top_k", -0.2), ("spin", -0.1)):
        expected = one.loc["sparta", "gsm8k"] + shift + 0.005
        assert table.frame.loc[level, "gsm8k"] == pytest.approx(expected)
    assert scoreboard(cells).cells["spin", ("gsm8k",)].spread == pytest.approx(0.01 / 2**0.5)
    ablations = table3(cells, paper=True).frame
    assert list(ablations.index)[:2] == ["sparta", "no_top_k"] and "spin" not in ablations.index
    assert ablations.loc["no_top_k (paper)", "gsm8k"] == 0.804


def test_tasks_that_were_not_trained_on_are_told_apart(cells: frames.Frames) -> None:
    frame = table7(cells).frame
    assert "gsm8k" not in frame.columns and "medqa" in frame.columns
    assert frame.loc["sparta", "medqa"] == table1(cells).frame.loc["sparta", "medqa"]


def test_a_figure_over_levels_has_a_panel_for_each_task_and_the_change(
    cells: frames.Frames, tmp_path: Path
) -> None:
    figure = by_level(cells, "method", "method")
    board = scoreboard(cells)
    first, last = (board.cells[level, ("gsm8k",)].mean for level in ("sparta", "spin"))
    titles = {axis.get_title().partition(":")[0]: axis for axis in figure.axes if axis.get_visible()}
    assert set(titles) == {"gsm8k", "medqa"}
    line = titles["gsm8k"].lines[0]
    assert line.get_ydata()[0] == pytest.approx(first) and line.get_ydata()[2] == pytest.approx(last)
    # The last level has no cell with scores, so there is no change to tell.
    assert titles["gsm8k"].get_title() == "gsm8k"
    save(figure, tmp_path / "figure.svg")
    save(FIGURES["figure2"].make(cells), tmp_path / "figure2.svg")
    with pytest.raises(
        Absent, match="needs a study with an axis pool, and this is a study with the axes method, seed"
    ):
        FIGURES["figure4"].make(cells)


def test_initial_models_that_differ_between_levels_are_those_of_each_level(
    state: Path, found: frames.Frames, tmp_path: Path
) -> None:
    other = frames.load(write_study(tmp_path, state, "models", {"3": 0.0, "4": -0.2}, initial_too=True))
    first = table1(found).frame.loc[INITIAL, "gsm8k"]
    board = scoreboard(other)
    assert INITIAL not in board.rows and "in: medqa; gsm8k." in " ".join(table1(other).notes)
    for level, shift in (("3", 0.0), ("4", -0.2)):
        assert board.initial[level, ("gsm8k",)].mean == pytest.approx(first + shift + 0.005)
    [axis] = [each for each in by_level(other, "models", "m").axes if each.get_title().startswith("gsm8k")]
    [line] = [each for each in axis.lines if each.get_label() == INITIAL]
    assert list(line.get_ydata()) == pytest.approx([first + 0.005, first - 0.195])
    # Of each level against its own: the shift is not seen.
    assert {gain.level: gain.before for gain in level_gains(board) if gain.column == ("gsm8k",)} == {
        "3": pytest.approx(first + 0.005),
        "4": pytest.approx(first - 0.195),
    }


def test_a_study_that_is_broken_or_not_begun_is_refused(study: Path, tmp_path: Path) -> None:
    manifest = files.read_json(StudyDir(study).manifest, StudyManifest)
    files.write_json(tmp_path / "study.json", msgspec.structs.replace(manifest, schema_version=9))
    with pytest.raises(SpartaError, match="study.json has schema version 9, this code reads version 1"):
        frames.load(tmp_path)
    files.write_json(tmp_path / "study.json", manifest)
    with pytest.raises(SpartaError, match="no cell of the study in .* has begun: run python jobs/study.py"):
        frames.load(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(SpartaError, match="study.json is not a valid StudyManifest"):
        frames.load(tmp_path)


def test_a_study_of_other_axes_has_no_ablations(state: Path, begun: frames.Frames, tmp_path: Path) -> None:
    found = frames.load(write_study(tmp_path, state, "models", {"3": 0.0}))
    with pytest.raises(Absent, match="no cell of this study is an ablation"):
        table3(found)
    with pytest.raises(Absent, match="ablations are cells of a study"):
        table3(begun)
