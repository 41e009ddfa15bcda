"""Frames: every row of a state is in them, the means are those of the evaluation, and what is not there yet is missing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.scripted_run import advance, begin
from support.store_samples import EARLIER_STATE

from analysis import frames
from analysis.frame_columns import FRAMES, NAME
from sparta.errors import SpartaError
from sparta.evaluation.scores import scores
from sparta.store import files
from sparta.store.records import Result, Vote
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_has_its_columns_and_types_with_rows_and_without(
    name: str, found: frames.Frames, begun: frames.Frames
) -> None:
    full, empty = found.frame(name), begun.frame(name)
    assert len(full) or name == "comparisons"
    for frame in (full, empty):
        assert list(frame.columns) == ["run", *FRAMES[name]]
        for column, kind in FRAMES[name].items():
            assert frame[column].dtype == ("category" if kind == NAME else pd.Series([], dtype=kind).dtype)
    # A run begins with its instructions and its initial pool.
    assert (len(empty) > 0) == (name in ("runs", "iterations", "splits", "standings"))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_in_pieces_is_the_same_frame(name: str, found: frames.Frames) -> None:
    whole, pieces = found.frame(name), list(found.each(name))
    assert len(whole) == sum(map(len, pieces))
    if len(whole):
        joined = pd.concat([piece.astype(object) for piece in pieces], ignore_index=True)
        pd.testing.assert_frame_equal(joined, whole.astype(object))


def test_votes_and_combats_are_those_on_disk(found: frames.Frames) -> None:
    run = found.run()
    rows = [row for t in (1, 2) for row in iter_shards(run.iteration(t).votes, Vote)]
    votes = found.votes
    assert [row.judge for row in rows] == votes.judge.tolist()
    assert sum(row.score is None for row in rows) == votes.score.isna().sum() > 0
    assert sum(row.score or 0 for row in rows) == votes.score.sum()
    results = [row for t in (1, 2) for row in files.read_rows(run.iteration(t).combats, Result)]
    combats = found.combats
    assert [row.winner for row in results] == [None if each != each else each for each in combats.winner]
    decided = combats[combats.reason == "pair"]
    ahead = (decided.margin > 0) == (decided.winner.astype(str) == decided["first"].astype(str))
    assert ahead.all() and len(decided) == len(found.pairs)
    assert (decided.loser.astype(str) != decided.winner.astype(str)).all()
    assert combats.prompt.tolist()[0] == run.plan(1)[0].messages[0].content


def test_results_and_tokens_of_an_iteration_are_those_of_its_stats(found: frames.Frames) -> None:
    stats = files.read_json(found.run().iteration(2).stats, IterationStats)
    row = found.iterations.set_index("iteration").loc[2]
    assert (row["pair"], row["equal"], row["tie"]) == tuple(
        stats.reasons[name] for name in ("pair", "equal", "tie")
    )
    assert row.generated + row.read + row.trained == stats.tokens.total
    counted = found.combats[found.combats.iteration == 2].reason.value_counts()
    assert counted["pair"] == stats.pairs


def test_changes_of_reputations_add_up_and_the_account_is_whole(found: frames.Frames) -> None:
    standings = found.standings
    for _, of_model in standings.groupby("model", observed=True):
        moved = of_model.reputation.iloc[-1] - of_model.reputation.iloc[0]
        assert of_model.change.sum() == pytest.approx(moved)
        assert pd.isna(of_model.change.iloc[0])
    assert found.cost.groupby("iteration").share.sum().tolist() == pytest.approx([1.0, 1.0])
    whole = found.cost.groupby("iteration").agg({"seconds": "sum", "places": "first", "clock": "first"})
    assert (whole.places * whole.clock).tolist() == pytest.approx(whole.seconds.tolist(), rel=1e-6)


@pytest.mark.parametrize(("task", "metric"), [("gsm8k", "accuracy"), ("alpaca", "score")])
def test_means_are_those_of_the_evaluation(found: frames.Frames, task: str, metric: str) -> None:
    run = found.run()
    expected = scores(run, "validation", task, metric, [run.iteration(t).root.name for t in (0, 1, 2)])
    mine = found.scores[(found.scores.task == task) & (found.scores.split == "validation")]
    assert list(mine.checkpoint) == list(expected)
    for row in mine.itertuples():
        values = expected[row.checkpoint].values
        assert row.mean == sum(values.values()) / len(values)
        assert (row.graded, row.ungraded, row.missing) == (len(values), 0, 0)
        items = found.item_scores[
            (found.item_scores.checkpoint == row.checkpoint) & (found.item_scores.task == task)
        ]
        given = items[items.split == "validation"].set_index("item_id").score.to_dict()
        assert given == values


def test_a_grade_that_is_still_to_come_is_missing_and_an_unreadable_one_ungraded(
    state: Path, tmp_path: Path
) -> None:
    shutil.copytree(state, tmp_path / "state")
    [folder] = (tmp_path / "state/evals/alpaca/validation").glob("grades-*")
    lines = (folder / "a0-00000.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first |= {"score": None, "raw": "?"}
    (folder / "a0-00000.jsonl").write_text("\n".join([json.dumps(first), *lines[2:]]) + "\n")
    found = frames.load(tmp_path / "state").scores
    row = found[(found.task == "alpaca") & (found.split == "validation")].iloc[0]
    assert (row.graded, row.ungraded, row.missing) == (row["items"] - 2, 1, 1)


def test_a_run_in_progress_shows_what_is_there(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0)
    advance(run, 1, "judge")
    found = frames.load(run.state.root)
    assert len(found.responses) == 2 * run.recipe.combats
    assert len(found.votes) and not len(found.combats) and not len(found.scores)
    assert found.iterations.committed.tolist() == [True, False]
    assert found.runs.committed.tolist() == [0]
    advance(run, 1)
    later = frames.load(run.state.root)
    assert len(later.combats) == run.recipe.combats and found.runs.committed.tolist() == [0]


def test_a_state_of_an_earlier_version_is_read() -> None:
    found = frames.load(EARLIER_STATE)
    assert len(found.combats) and len(found.votes) and len(found.scores)
    assert found.iterations.generated.isna().all()


def test_runs_are_told_apart(state: Path) -> None:
    found = frames.load_all({"one": state, "two": state})
    assert found.votes.run.value_counts().to_dict() == dict.fromkeys(
        ("one", "two"), len(frames.load(state).votes)
    )
    assert found.votes.judge.dtype == "category"
    with pytest.raises(SpartaError, match="give each a name"):
        frames.load_all([state, state])
    with pytest.raises(SpartaError, match="exactly one run called None: name one of them"):
        found.run()
    assert found.run("two").state.root == state


def test_texts_of_answers_come_with_their_questions(found: frames.Frames) -> None:
    texts = found.answer_texts("gsm8k", "test")
    assert len(texts) == len(found.answers[(found.answers.task == "gsm8k") & (found.answers.split == "test")])
    assert texts.prompt[0] == "test question 0 of gsm8k?" and texts.right[0] == "0"
    assert set(texts.text[texts.item_id == "test-3"]) <= {"So it is #### 3", "So it is #### 4"}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("iter_01/MANIFEST.json", "{", "MANIFEST.json is not a valid Manifest"),
        ("iter_01/MANIFEST.json", None, "has schema version 99, this program knows 1"),
        ("run.json", None, "has schema version 99, this code reads version 1"),
        ("iter_01/combats.jsonl", "{}\n", "combats.jsonl, line 1 is not a valid Result"),
    ],
)
def test_damage_is_one_sentence(
    state: Path, tmp_path: Path, file: str, content: str | None, said: str
) -> None:
    shutil.copytree(state, tmp_path / "state")
    path = tmp_path / "state" / file
    other = json.dumps({**json.loads(path.read_text()), "schema_version": 99}) if content is None else content
    path.write_text(other)
    with pytest.raises(SpartaError, match=said):
        frames.load(tmp_path / "state").combats  # noqa: B018


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="holds no run"):
        frames.load(tmp_path)
    with pytest.raises(SpartaError, match="there is no frame duels: use one of runs"):
        next(frames.Frames([]).each("duels"))
