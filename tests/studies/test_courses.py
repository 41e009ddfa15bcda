"""The course of a study's pools: what the table says of them is what the runs of its cells hold."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.scripted_run import typed
from support.study_runs import BASELINE, grid_of, write_study

from sparta.evaluation.summary import read_summary
from sparta.store import standings
from sparta.store.run import Run
from sparta.studies.comparison import table_of
from sparta.studies.courses import MeanOverSeeds, over_seeds
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import manifest_of


def test_a_course_is_that_of_the_runs(tmp_path: Path) -> None:
    axes = {"method": {"sparta": {}, "frozen": {"reputation.frozen": True}, "self": BASELINE}, "seed": [0, 1]}
    once = [{"method": ["frozen", "self"], "seed": 1}]
    path = write_study(tmp_path, axes, recipe={"iterations": 2, "combats": 9, "models": 4}, without=once)
    place = StudyDir(tmp_path / "study")
    assert typed("study", path, "--state", place.root, "--limit", 2).returncode == 0
    table = table_of(place, grid_of(path), manifest_of(place, grid_of(path)))
    courses = {course.levels["method"]: course for course in table.courses}
    runs = [Run.open(place.cell(f"sparta-seed{seed}")) for seed in (0, 1)]
    skills = [read_summary(run.state).tasks["own"].validation for run in runs]

    course = courses["sparta"]
    for t, best in enumerate(course.best):
        pools = [[known[f"iter_{t:02}-{name}"] for name in runs[0].models] for known in skills]
        assert best == pytest.approx(np.mean([max(pool) for pool in pools]))  # type: ignore[type-var]
        assert course.mean[t] == pytest.approx(np.mean(pools))  # type: ignore[arg-type]
    stats = [
        [json.loads(run.iteration(t).stats.read_text())["reasons"].get("pair", 0) for t in (1, 2)]
        for run in runs
    ]
    assert course.pairs == pytest.approx(np.mean(stats, axis=0) / 9)

    found = []
    for run, known in zip(runs, skills, strict=True):
        earned = [[standings.at_end(run, t)[name].reputation for name in run.models] for t in (1, 2)]
        shown = [[known[f"iter_{t:02}-{name}"] for name in run.models] for t in (0, 1)]
        found.append(np.corrcoef(np.mean(earned, axis=0), np.mean(shown, axis=0))[0, 1])  # type: ignore[arg-type]
    assert course.follows is not None
    assert course.follows.mean == pytest.approx(math.tanh(np.mean(np.arctanh(found))))

    row = next(row for row in table.rows if row.levels["method"] == "sparta")
    assert course.gain is not None
    initial = [score for score in row.initial if score is not None]
    assert course.gain.difference == pytest.approx(np.mean(row.scores) - np.mean(initial))
    assert course.follows_combats is None, "no program grades these instructions"
    assert courses["frozen"].follows is None and courses["frozen"].pairs
    assert courses["self"].follows is None and not courses["self"].pairs


def test_the_interval_of_a_correlation_stays_within_its_bounds() -> None:
    found = over_seeds([0.95, 0.99, None, 0.2])
    assert found is not None and found.seeds == 3
    assert found.low is not None and found.high is not None
    assert -1 < found.low < found.mean < found.high < 1
    assert over_seeds([0.5]) == MeanOverSeeds(pytest.approx(0.5), None, None, 1)
    assert over_seeds([1.0, 1.0]) is not None
    assert over_seeds([None]) is None
