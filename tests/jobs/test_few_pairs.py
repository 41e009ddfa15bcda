"""A run that learns nothing says so: after each iteration, at its end, in the status and for programs."""

import json
from pathlib import Path

import pytest
from support.scripted_run import typed, write_recipe


@pytest.fixture(scope="module")
def barren(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A state in which no combat is decided clearly enough for a pair, and what the launch said."""
    folder = tmp_path_factory.mktemp("barren")
    recipe = write_recipe(folder, iterations=2, preferences={"min_margin": 9.0})
    done = typed("launch", "--recipe", recipe, "--state", folder / "state")
    assert done.returncode == 0, done.stderr
    return folder / "state", done.stdout


def test_each_iteration_and_the_end_warn(barren: tuple[Path, str]) -> None:
    _, said = barren
    assert said.count("0 preference pairs from 12 combats (0 %), not used: ") == 2
    assert said.count("warning: only 0 of 12 combats made a pair; most of the others are margin") == 2
    assert "warning: fewer than 10 % of the combats made pairs in iterations 1, 2" in said


def test_the_status_warns_and_counts(barren: tuple[Path, str]) -> None:
    state, _ = barren
    shown = typed("status", state).stdout
    assert "warning: iteration 2: only 0 of 12 combats made a pair" in shown and "0/12" in shown
    entry = json.loads(typed("status", state, "--json").stdout)["iterations"][-1]
    assert (entry["combats"], entry["pairs"]) == (12, 0) and sum(entry["reasons"].values()) == 12
    assert entry["cut_responses"] >= 0 and entry["warning"].startswith("only 0 of 12")


def test_a_run_that_learns_does_not_warn(tmp_path: Path) -> None:
    done = typed("launch", "--recipe", write_recipe(tmp_path, iterations=1), "--state", tmp_path / "state")
    assert done.returncode == 0 and "warning" not in done.stdout
    assert "warning" not in typed("status", tmp_path / "state").stdout
