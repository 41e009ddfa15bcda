"""From votes of the model on its own candidates to pairs: worked by hand, on rows as a run has them."""

from pathlib import Path

import pytest
from support.one_model_runs import write_case
from support.openings import begin_or_continue
from support.scripted_run import advance

from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases.single.assess import to_judge
from sparta.phases.single.rows import Candidate, Judgement, Ranking
from sparta.recipes.load import load
from sparta.recipes.schema import Judging
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Pair
from sparta.store.run import Run
from sparta.store.shards import ShardWriter
from sparta.store.stats import IterationStats


def candidate(draw_id: str, number: int, text: str) -> Candidate:
    return Candidate(
        draw_id, number, "model1", text, tuple(text.encode()), "scripted-bytes", 9, len(text), "stop"
    )


def judgement(draw_id: str, number: int, round: int, score: float | None) -> Judgement:
    return Judgement(draw_id, number, round, "model1", score, "?", 1, 20, 5, 0)


TEXTS = {"01-0": ["a", "b", "a", "c"], "01-1": ["a", "a ", "a", ""], "01-2": ["x", "y", "", "x"]}
VOTES: dict[tuple[str, int], list[float | None]] = {
    ("01-0", 0): [8, 7],
    ("01-0", 1): [9, None],
    ("01-0", 3): [3, 4],
    ("01-2", 0): [6, 6],
    ("01-2", 1): [5, 7],
}


@pytest.fixture
def ranked(tmp_path: Path) -> Run:
    """Three prompts, four candidates each, two votes: one pair, one prompt whose candidates are equal, one tie."""
    recipe = load(write_case(tmp_path, "self_rewarding", combats=3, baseline={"candidates": 4, "rounds": 2}))
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe)
    advance(run, 1, "draw")
    with ShardWriter(run.iteration(1).root / "candidates", 0, 0, 1.0) as writer:
        for draw_id, texts in TEXTS.items():
            for number, text in enumerate(texts):
                writer.write(candidate(draw_id, number, text))
    with ShardWriter(run.iteration(1).root / "judgements", 0, 0, 1.0) as writer:
        for (draw_id, number), scores in VOTES.items():
            for round, score in enumerate(scores):
                writer.write(judgement(draw_id, number, round, score))
    return run


def test_votes_to_pairs_by_hand(ranked: Run) -> None:
    *_, assess, _rank, _train, _commit = phases_of(ranked.recipe, 1)
    assert not assess.missing(ranked, 1), "these are all judgements that are needed"
    advance(ranked, 1, "rank")
    first, second, third = files.read_rows(ranked.iteration(1).root / "rankings.jsonl", Ranking)
    # "a" is judged once, and counts for both candidates that say it; of "b" one vote could not be read.
    assert first == Ranking("01-0", (7.5, 9.0, 7.5, 3.5), (2, 1, 2, 2), 1, 3, "pair")
    assert second == Ranking("01-1", (None, None, None, None), (0, 0, 0, 0), None, None, "equal")
    assert third == Ranking("01-2", (6.0, 6.0, None, 6.0), (2, 2, 0, 2), None, None, "tie")
    [pair] = files.read_rows(ranked.iteration(1).preferences, Pair)
    assert (pair.chosen, pair.rejected, pair.scores) == ("b", "c", (9.0, 3.5))
    assert pair.chosen_token_ids == tuple(b"b") and pair.models == ("model1", "model1")


def test_what_is_counted(ranked: Run) -> None:
    advance(ranked, 1, "rank")
    stats = files.read_json(ranked.iteration(1).stats, IterationStats)
    assert stats.reasons == {"pair": 1, "equal": 1, "tie": 1} and stats.combats == 3
    assert (
        stats.in_words
        == "1 preference pairs from 3 prompts (33 %), not used: 1 equal, 1 tie; missing: 1 of 10 votes"
    )
    judge = stats.judges["model1"]
    assert (judge.votes, judge.missing, judge.new_tokens) == (10, 1, 50)


def test_a_judgement_that_is_missing_stops_the_ranking(ranked: Run) -> None:
    [shard] = (ranked.iteration(1).root / "judgements").glob("*.jsonl")
    lines = shard.read_text().splitlines(keepends=True)
    shard.write_text("".join(lines[:-1]))
    with pytest.raises(SpartaError, match="1 of 2 judgements of candidate 1 of 01-2"):
        phases_of(ranked.recipe, 1)[3].execute(ranked, 1)  # type: ignore[attr-defined]


def test_which_candidates_are_judged() -> None:
    rows = [candidate("d", number, text) for number, text in enumerate(["a", " ", "b", "a\n"])]
    judged = [row.number for row in to_judge(rows, Judging())]
    assert judged == [0, 2]
    assert [row.number for row in to_judge(rows, Judging(equal="judge"))] == [0, 1, 2, 3]
    alone = [rows[0], rows[3]]
    assert to_judge(alone, Judging()) == []
    # As long as another candidate may come, it may be needed.
    assert to_judge(alone, Judging(), complete=False) == [rows[0]]
