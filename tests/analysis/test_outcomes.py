"""Meetings, shares, costs and improvement, counted again by plain loops; and figures that say what they show."""

import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from analysis import drawing, frames, outcomes, run_figures
from analysis.catalogue import FIGURES
from analysis.pieces import Absent
from sparta.evaluation.selection import ALL, INITIAL
from sparta.evaluation.summary import read_summary
from sparta.store import files
from sparta.store.records import Result
from sparta.store.run_budget import spent


def results(found: frames.Frames) -> list[Result]:
    run = found.run()
    return [row for t in (1, 2) for row in files.read_rows(run.iteration(t).combats, Result)]


def test_meetings_are_counted_from_both_sides(found: frames.Frames) -> None:
    meetings = outcomes.meetings(found).set_index(["model", "opponent"])
    met, won = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for result in results(found):
        first, second = result.models
        for model, other in ((first, second), (second, first)):
            met[model, other] += 1
            won[model, other] += result.winner == model
    assert meetings.met.to_dict() == met and meetings.won.to_dict() == won
    assert (meetings.won + meetings.lost + meetings.undecided == meetings.met).all()
    pair = next(iter(met))
    assert meetings.loc[pair].lost == meetings.loc[pair[::-1]].won
    matrix = outcomes.matrix(outcomes.meetings(found))
    share = won[pair] / (won[pair] + won[pair[::-1]])
    assert matrix.loc[pair] == pytest.approx(share) and pd.isna(matrix.loc[pair[0], pair[0]])


def test_shares_add_up(found: frames.Frames) -> None:
    shares = outcomes.shares(found)
    assert shares[["pair", "empty", "equal", "void", "tie", "margin"]].sum(axis=1).tolist() == pytest.approx(
        [1, 1]
    )
    second = found.responses[found.responses.iteration == 2]
    assert shares.cut[1] == pytest.approx((second.finish_reason == "length").sum() / len(second))
    votes = found.votes[found.votes.iteration == 2]
    assert shares.missing_votes[1] == pytest.approx(votes.score.isna().sum() / len(votes))


def test_time_is_that_of_the_account(found: frames.Frames) -> None:
    # tests/support/paper_sized.py: four GPUs for 1,800 s, of which 5,400 GPU-seconds were used.
    table = outcomes.time_by_part(found).set_index("iteration")
    assert table.loc[1, "train"] == 3800 and table.loc["all", "train"] == 7600
    assert table["all parts"].tolist() == [7200, 7200, 14400]
    assert table["idle share"].tolist() == pytest.approx([0.25] * 3)


def test_improvement_is_in_points_and_tokens(found: frames.Frames) -> None:
    run = found.run()
    table = outcomes.improvement(found).set_index("task")
    for task, top in (("gsm8k", 1), ("alpaca", 10)):
        scores = read_summary(run.state).tasks[task]
        by_kind = {choice.what: choice.test[scores.metrics[0].name].mean or 0 for choice in scores.choices}
        points = 100 * (by_kind[ALL] - by_kind[INITIAL]) / top
        row = table.loc[task]
        assert row.points == pytest.approx(points) and row.tokens == spent(run).total
        if points > 0:
            assert row.tokens_a_point == pytest.approx(spent(run).total / points)
        else:
            assert pd.isna(row.tokens_a_point)
    assert set(table.split) == {"test"}


def test_losses_are_laid_out_over_iterations(found: frames.Frames) -> None:
    curves = outcomes.loss_curves(found)
    assert len(curves) == 200 * 2 * 4
    assert curves.position.min() == pytest.approx(1 / 200) and curves.position.max() == 2
    mine = curves[(curves.model == "model0") & (curves.iteration == 2)]
    assert mine.position.iloc[0] == pytest.approx(1 + 1 / 200)


def test_the_training_of_the_initial_pool_is_before_0_and_has_ticks(found: frames.Frames) -> None:
    earlier = frames.Frames(found.sources)
    earlier._kept = {"updates": found.updates.assign(iteration=found.updates.iteration - 1)}
    curves = outcomes.loss_curves(earlier)
    assert (
        -1 < curves[curves.iteration == 0].position.min() < curves[curves.iteration == 0].position.max() == 0
    )
    assert run_figures.losses(earlier).axes[0].get_xticks().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_part_of_a_page(name: str, found: frames.Frames) -> None:
    try:
        figure = FIGURES[name].make(found)
    except Absent:
        assert name in ("figure2", "figure3", "figure4", "figure6")
        return
    text = drawing.svg(figure, name)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and all(each.startswith(f"{name}-") for each in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert text.startswith("<svg") and not re.search(r"<svg[^>]* (width|height)=", text)
    assert drawing.INK.lower() not in text.lower() and "currentColor" in text and "<metadata" not in text


def test_a_figure_is_the_same_again(found: frames.Frames) -> None:
    assert drawing.svg(run_figures.shares(found), "a") == drawing.svg(run_figures.shares(found), "a")


def test_a_figure_shows_the_numbers(found: frames.Frames) -> None:
    figure = run_figures.reputations(found)
    left = figure.axes[0]
    standings = found.standings
    for line, model in zip(left.lines, found.models, strict=True):
        assert line.get_label() == model
        assert list(line.get_ydata()) == standings[standings.model == model].reputation.tolist()
    bars = run_figures.time_by_part(found).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == pytest.approx(4)  # hours


def test_figures_of_one_run_refuse_several(state: Path, begun: frames.Frames) -> None:
    several = frames.load_all({"one": state, "two": state})
    with pytest.raises(Absent, match="of one run"):
        run_figures.shares(several)
    with pytest.raises(Absent, match="no iteration has an account of its time yet"):
        run_figures.time_by_part(begun)


def test_constant_reputations_are_said_in_the_figure(found: frames.Frames) -> None:
    frozen = frames.Frames(found.sources)
    frozen._kept = {name: found.frame(name) for name in ("combats", "scores")}
    frozen._kept["standings"] = found.standings.assign(reputation=1000.0)
    for name in ("figure5", "figure12", "figure13"):
        titles = [axis.get_title() for axis in FIGURES[name].make(frozen).axes if axis.get_visible()]
        assert titles and all("r is not defined: reputations are all equal" in title for title in titles)
