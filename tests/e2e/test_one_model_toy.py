"""Methods that align one model on the embedded pool, with real models: an iteration is sampled, judged, trained and scored."""

import json
import math
from pathlib import Path

import pytest
from support.openings import begin_or_continue
from support.scripted_run import advance, typed

from sparta.phases.merge import read_pairs
from sparta.recipes.load import load
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Trained
from sparta.store.shards import read_shards
from sparta.store.stats import IterationStats

SMALL = [
    "combats=12",
    "engine.threads=1",
    "evaluation.validation=5",
    "evaluation.test=5",
    "cluster.kind=inline",
]


@pytest.mark.parametrize("name", ["self_rewarding", "meta_rewarding", "spin", "sppo"])
def test_an_iteration_with_real_models(name: str, tmp_path: Path) -> None:
    run = begin_or_continue(StateDir(tmp_path / "state"), load(f"toy/{name}", SMALL))
    advance(run, 1)
    [trained] = read_shards(run.iteration(1).training, Trained).values()
    assert trained.model == "picker" and trained.pairs > 0 and trained.dropped == 0
    # The reference is the model as it was, so all log-ratios are 0 in the first update.
    if name == "sppo":
        first = read_pairs(run, 1)
        losses = [
            sum((run.recipe.baseline.eta * (rate - 0.5)) ** 2 for rate in pair.scores) for pair in first
        ]
        assert min(losses) - 1e-3 <= (trained.first_loss or 0) <= max(losses) + 1e-3
    else:
        assert trained.first_loss == pytest.approx(math.log(2), abs=1e-4)
    before, after = run.pool(0), run.pool(1)
    assert [name for name in before if before[name] != after[name]] == ["picker"]
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    assert stats.tokens.trained == trained.tokens and stats.combats == 12


def test_its_checkpoints_are_scored_like_any(tmp_path: Path) -> None:
    run = begin_or_continue(StateDir(tmp_path / "state"), load("toy/spin", SMALL))
    advance(run, 1)
    done = typed("evaluate", run.state.root, "--cluster", "inline")
    assert done.returncode == 0, done.stderr
    scores = json.loads((run.state.evals / "summary.json").read_text())["tasks"]["toy"]["validation"]
    assert {"iter_00-picker", "iter_01-picker", "iter_01-adder"} <= scores.keys()
    assert scores["iter_00-adder"] == scores["iter_01-adder"]
