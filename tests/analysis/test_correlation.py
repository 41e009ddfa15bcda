"""r against scipy, on numbers of every kind; where it is not defined, a reason and no NaN that looks like a number."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.scripted_run import advance, begin

from analysis import correlation, frames
from analysis.pieces import Absent


def cloud(models: int, each: int = 1, seed: int = 0, ties: bool = False) -> pd.DataFrame:
    dice = np.random.default_rng(seed)
    performance = dice.normal(size=models * each)
    reputation = 1000 + 3 * performance + dice.normal(size=models * each)
    if ties:
        performance, reputation = performance.round(), reputation.round()
    names = np.repeat([f"m{number}" for number in range(models)], each)
    return pd.DataFrame({"model": names, "performance": performance, "reputation": reputation})


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("models", "each"), [(10, 1), (10, 8), (4, 1)])
def test_r_is_that_of_scipy(models: int, each: int, ties: bool) -> None:
    data = cloud(models, each, seed=3, ties=ties)
    for mine, theirs in ((correlation._pearson, stats.pearsonr), (correlation._of_ranks, stats.spearmanr)):
        value, low, high = correlation.with_interval(data, mine)
        assert value == pytest.approx(theirs(data.performance, data.reputation).statistic)
        assert low is not None and high is not None and low <= value <= high


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    data = cloud(12, seed=5)
    _, low, high = correlation.with_interval(data, correlation._pearson)

    def r(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return stats.pearsonr(x, y, axis=axis).statistic  # type: ignore[no-any-return]

    theirs = stats.bootstrap(
        (data.performance, data.reputation), r, paired=True, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_points_of_one_model_count_together() -> None:
    once = cloud(6, seed=2)
    again = pd.concat([once] * 8, ignore_index=True)
    assert correlation.with_interval(once, correlation._pearson) == pytest.approx(
        correlation.with_interval(again, correlation._pearson)
    )
    uneven = correlation.with_interval(pd.concat([again, once[once.model == "m0"]]), correlation._pearson)
    assert uneven == pytest.approx(correlation.with_interval(again, correlation._pearson), abs=0.25)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reputation": 1000.0}, "reputations are all equal"),
        ({"performance": 0.5}, "scores are all equal"),
        ({"model": "alone"}, "fewer than 3 models"),
    ],
)
def test_where_r_is_not_defined_the_reason_is_said(change: dict[str, object], said: str) -> None:
    assert correlation.undefined(cloud(5).assign(**change)) == said
    assert correlation.undefined(cloud(5)) == ""


def test_an_interval_is_left_out_where_most_resamples_have_no_r() -> None:
    # Only resamples with both of two models out of ten have an r.
    data = cloud(10).assign(performance=[1.0] + [0.0] * 9, reputation=[0.0, 1.0] + [0.0] * 8)
    value, *ends = correlation.with_interval(data, correlation._pearson)
    assert value == pytest.approx(-1 / 9) and ends == [None, None]


def test_points_join_scores_and_reputations(found: frames.Frames) -> None:
    points = correlation.points(found)
    assert len(points) == 3 * 2 * 4  # tasks, iterations, models
    row = points.iloc[5]
    scores = found.scores[(found.scores.split == "validation") & (found.scores.task == row.task)]
    [score] = scores[(scores.iteration == row.iteration) & (scores.model == row.model) & scores.selects][
        "mean"
    ]
    standings = found.standings[
        (found.standings.iteration == row.iteration) & (found.standings.model == row.model)
    ]
    assert (row.performance, row.reputation) == (score, standings.reputation.iloc[0])
    means = correlation.mean_points(found)
    mine = points[(points.task == row.task) & (points.model == row.model)]
    [mean] = means[(means.task == row.task) & (means.model == row.model)].performance
    assert mean == pytest.approx(mine.performance.mean())
    assert correlation.correlations(found, every_iteration=True).points.tolist() == [8, 8, 8]


def test_constant_reputations_have_no_r(found: frames.Frames) -> None:
    frozen = frames.Frames(found.sources)
    frozen._kept = {
        **found._kept,
        "standings": found.standings.assign(reputation=1000.0),
        "scores": found.scores,
        "combats": found.combats,
    }
    table = correlation.correlations(frozen)
    assert set(table.remark) == {"reputations are all equal"} and table.pearson.isna().all()
    assert correlation.mean_of_r(table) is None
    assert correlation.mean_of_r(correlation.correlations(found)) is not None


def test_a_run_that_was_not_scored_has_no_points(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with pytest.raises(Absent, match="no combats yet"):
        correlation.points(frames.load(run.state.root))
    advance(run, 1)
    with pytest.raises(Absent, match="no trained checkpoint was scored"):
        correlation.points(frames.load(run.state.root))
