"""The recipe of the toy study plays an iteration, with real models."""

from pathlib import Path

from support.openings import begin_or_continue
from support.scripted_run import advance

from sparta.recipes.load import load
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.records import Response
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats
from sparta.studies.courses import right_in_combats
from sparta.toy import family

SMALL = ["combats=12", "match.first=balanced", "data.size=50", "engine.threads=1", "cluster.kind=inline"]


def test_the_toy_study_plays_an_iteration_in_which_judges_differ_and_models_learn(tmp_path: Path) -> None:
    run = begin_or_continue(StateDir(tmp_path / "state"), load("toy_study", SMALL))
    advance(run, 1)
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    assert stats.pairs >= 3 and stats.missing_votes < stats.votes / 10
    before, after = run.pool(0), run.pool(1)
    assert all(before[name] != after[name] for name in run.models)
    right = right_in_combats(run)
    assert 0 < sum(right) < len(right)
    for name, share in zip(run.models, right, strict=True):
        given = [row for row in iter_shards(run.iteration(1).responses, Response) if row.model == name]
        questions = {combat.combat_id: combat.messages[-1].content for combat in run.plan(1)}
        hits = [family.is_right(family.answer_to(questions[row.combat_id]), row.text) for row in given]
        assert share == sum(hits) / len(hits)
    assert len({standing.reputation for standing in standings.at_end(run, 1).values()}) > 2


def test_its_recipe_differs_from_the_toy_s_in_what_lets_methods_differ() -> None:
    study, toy = load("toy_study", []), load("toy", [])
    changed = {line.partition(":")[0] for line in toy.differences(study)}
    expected = {"combats", "data.size", "generation.temperature", "generation.top_p", "judging.temperature"}
    assert changed - {"name"} == expected
    assert study.pool == toy.pool and study.evaluation.validation == 100
