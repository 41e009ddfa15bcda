"""Case studies: the right combats, the weights that the scores were made with, and texts that harm nobody."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from analysis.cases import KINDS, Case, case_studies, shown
from analysis.frames import Frames, load_all

RULES = {
    "paper": {"reweighting": {"first_iteration": 1, "gamma": 0.5}},
    "authors": {"reputation": {"preset": "authors"}},
}


def played(folder: Path, **changes: object) -> Frames:
    run = begin(folder, models=5, combats=30, **changes)
    for t in (1, 2):
        advance(run, t)
    return load_all([run.state.root])


def of_kind(cases: Sequence[Case], kind: str) -> list[Case]:
    """The cases that are shown for `kind`."""
    return [case for case in cases if kind in case.kinds]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return played(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("rules", RULES)
def test_the_weighted_votes_of_a_case_give_its_scores(rules: str, tmp_path: Path) -> None:
    cases = case_studies(played(tmp_path, **RULES[rules]), per_kind=30)
    assert cases
    for case in cases:
        counted = [vote for vote in case.votes if vote.weight is not None]
        assert sum(vote.weight for vote in counted) == pytest.approx(1)
        for number, side in enumerate(case.sides):
            assert side.score == pytest.approx(sum(vote.weight * vote.scores[number] for vote in counted))


def test_each_kind_has_the_extremes_of_every_iteration(usual: Frames) -> None:
    cases = case_studies(usual, per_kind=2)
    for t in (1, 2):
        pairs = usual.combats[(usual.combats.iteration == t) & usual.combats.winner.notna()]
        margins = sorted(pairs.margin.abs())
        here = [case for case in cases if case.iteration == t]
        assert sorted(abs(case.margin) for case in of_kind(here, "largest margin")) == margins[-2:]
        assert sorted(abs(case.margin) for case in of_kind(here, "smallest margin")) == margins[:2]
        assert len(of_kind(here, "most disputed")) == 2
    assert {kind for case in cases for kind in case.kinds} <= set(KINDS)
    assert len({(case.iteration, case.combat_id) for case in cases}) == len(cases)


def test_the_most_disputed_has_the_largest_spread_of_the_judges_margins(usual: Frames) -> None:
    import statistics

    every = case_studies(usual, per_kind=30)
    for case in every:
        gaps = [vote.scores[0] - vote.scores[1] for vote in case.votes if vote.weight is not None]
        assert case.spread == pytest.approx(statistics.stdev(gaps))
    for t in (1, 2):
        [most] = [
            case for case in of_kind(case_studies(usual, per_kind=1), "most disputed") if case.iteration == t
        ]
        assert most.spread == max(case.spread for case in every if case.iteration == t)


def test_the_winner_of_an_upset_had_the_lower_reputation(usual: Frames) -> None:
    upsets = of_kind(case_studies(usual, per_kind=30), "upset")
    assert upsets
    for case in upsets:
        [winner] = [side for side in case.sides if side.model == case.winner]
        [loser] = [side for side in case.sides if side.model != case.winner]
        assert winner.before < loser.before


def test_a_missing_vote_has_no_weight(tmp_path: Path) -> None:
    unreadable = {"kind": "scripted", "scripted": {"unreadable": {"model2": 0.4}}}
    found = played(tmp_path, engine=unreadable, judging={"retries": 0})
    missing = [
        vote for case in case_studies(found, per_kind=30) for vote in case.votes if None in vote.scores
    ]
    assert missing and all(vote.weight is None and vote.judge == "model2" for vote in missing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb\x00", "a\\x1b[31mb\\x00"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("line\n\ttab 👍🏽", "line\n\ttab 👍🏽"),
    ],
)
def test_control_and_direction_characters_are_spelled_out(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_long_text_is_cut_with_a_note_of_how_much() -> None:
    assert shown("x" * 100_000, limit=10) == "x" * 10 + " [… 99,990 more characters]"
    assert shown("x" * 10, limit=10) == "x" * 10
