"""Judges and labels: weights are those of the replay, and every number is that of a small example worked by hand, or of a plain loop."""

from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from support.scripted_run import advance, begin

from analysis import frames, judging
from analysis.cases import case_studies
from analysis.judging import Bench
from analysis.pieces import Absent


@pytest.mark.parametrize(
    "reputation",
    [
        {},
        {"labels": "final"},
        {"omega": "contestants", "update": "sequential", "deviation": {"unit": "combat"}},
        {"frozen": True},
    ],
)
def test_the_weights_are_those_that_made_the_labels(tmp_path: Path, reputation: dict[str, object]) -> None:
    run = begin(tmp_path, models=5, combats=30, reputation=reputation, reweighting={"enabled": True})
    for t in (0, 1, 2, 3):
        advance(run, t)
    found = frames.load(run.state.root)
    benches = list(judging.benches(found))
    assert [bench.iteration for bench in benches] == [1, 2, 3]
    for bench in benches:
        combats = found.combats[
            (found.combats.iteration == bench.iteration) & found.combats.score_first.notna()
        ]
        np.testing.assert_allclose(
            bench.means(bench.weights), combats[["score_first", "score_second"]], rtol=1e-12
        )
        assert bench.counted.sum(axis=1).tolist() == combats.jury.tolist()


def test_an_iteration_that_is_being_merged_is_left_out(tmp_path: Path) -> None:
    run = begin(tmp_path, models=5, combats=20)
    advance(run, 1)
    advance(run, 2, upto="merge")
    run.iteration(2).standing.unlink()
    found = frames.load(run.state.root)
    assert set(found.combats.iteration) == {1, 2}
    assert [bench.iteration for bench in judging.benches(found)] == [1]
    assert {case.iteration for case in case_studies(found)} == {1}


def test_while_the_first_iteration_is_being_merged_no_label_is_shown(tmp_path: Path) -> None:
    run = begin(tmp_path, models=5, combats=20)
    advance(run, 1, upto="merge")
    run.iteration(1).standing.unlink()
    with pytest.raises(Absent, match="no combat was judged yet"):
        judging.margins(frames.load(run.state.root))


def test_a_judge_is_counted_as_a_plain_loop_counts_it(found: frames.Frames) -> None:
    votes, combats = found.votes, found.combats.set_index("combat_id")
    made = judging.judges(found).set_index(["iteration", "judge"])
    judge = found.models[1]
    mine = votes[(votes.iteration == 2) & (votes.judge == judge)]
    row = made.loc[2, judge]
    scores = [score for score in mine.score if score == score]
    assert row.votes == len(mine) and row.missing == pytest.approx(1 - len(scores) / len(mine))
    assert (row["mean"], row.spread) == pytest.approx((fmean(scores), stdev(scores)))
    lenient, right, decided = [], 0, 0
    for vote in mine.itertuples():
        others = votes[
            (votes.combat_id == vote.combat_id)
            & (votes.contestant == vote.contestant)
            & (votes.judge != judge)
        ]
        known = others.score.dropna()
        if vote.score == vote.score and len(known):
            lenient.append(vote.score - known.mean())
    for combat, both in mine.groupby("combat_id"):
        by_contestant = {str(vote.contestant): vote.score for vote in both.itertuples()}
        result = combats.loc[combat]
        if result.winner != result.winner:
            continue
        won, lost = by_contestant[result.winner], by_contestant[result.loser]
        if won == won and lost == lost and won != lost:
            decided += 1
            right += won > lost
    assert row.leniency == pytest.approx(fmean(lenient))
    assert row.decided == decided > 0 and row.agreement == pytest.approx(right / decided)


def bench(votes: list[list[list[float]]], weights: list[list[float]], winner: list[int]) -> Bench:
    table = np.array(votes)
    made = Bench(
        "run",
        1,
        ("a", "b", "c"),
        [str(n) for n in range(len(votes))],
        table,
        np.isfinite(table).all(axis=1),
        np.array(weights),
        np.zeros(len(votes)),
        np.array(winner),
    )
    means = made.means(made.weights)
    return Bench(
        made.run,
        1,
        made.models,
        made.ids,
        table,
        made.counted,
        made.weights,
        means[:, 0] - means[:, 1],
        made.winner,
    )


def test_labels_of_an_example_worked_by_hand(found: frames.Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    example = bench(
        # Two judges disagree by the same amount: the heavier decides. Then both agree. Then the lighter one is louder. Then one vote is missing.
        [
            [[8, 6, np.nan], [6, 8, np.nan]],
            [[9, 7, np.nan], [5, 5, np.nan]],
            [[5, 2, np.nan], [4, 4, np.nan]],
            [[3, 9, np.nan], [4, np.nan, np.nan]],
        ],
        [[3, 1, 5], [1, 1, 5], [3, 1, 5], [2, 2, 5]],
        [0, 0, 0, 1],
    )
    monkeypatch.setattr(judging, "benches", lambda _: iter([example]))
    [row] = judging.labels(found).itertuples()
    assert (row.judged, row.pairs) == (4, 4)
    # Gaps by weights: 1, 3, 0.25, -1; without weights: 0, 3, -0.5, -1.
    assert (row.margin, row.median_margin) == pytest.approx(((1 + 3 + 0.25 + 1) / 4, 1.0))
    assert (row.by_weights, row.reversed) == (0.25, 0.25)
    assert row.jury == 1.75
    # (3 + 1)^2 / (9 + 1) = 1.6 twice, 2 and 1.
    assert row.effective_judges == pytest.approx((1.6 + 2 + 1.6 + 1) / 4)
    assert row.split == pytest.approx((0.5 + 0 + 0.5 + 0) / 4)
    pairs = judging.margins(found)
    assert pairs.margin.tolist() == pytest.approx([1, 3, 0.25, 1])
    assert pairs.unweighted.tolist() == pytest.approx([0, 3, -0.5, 1])


def test_a_jury_without_weight_counts_equally() -> None:
    example = bench([[[8, 6, np.nan], [6, 4, np.nan]]], [[0, 0, 0]], [0])
    assert example.means(example.weights).tolist() == [[7.0, 5.0]]


def test_without_judged_combats_the_reason_is_said(begun: frames.Frames) -> None:
    with pytest.raises(Absent, match="no combat was judged yet"):
        judging.labels(begun)
