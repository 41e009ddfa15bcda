"""Merge: counts add up, an unreadable jury is refused, and an incomplete iteration is not merged."""

import re
from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from sparta.errors import SpartaError
from sparta.phases.merge import Merge, read_pairs
from sparta.store import files
from sparta.store.records import Response, Result, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.store.stats import IterationStats


def stats_of(run: Run) -> IterationStats:
    return files.read_json(run.iteration(1).stats, IterationStats)


def rewrite(run: Run, change: dict[str, str], t: int = 1) -> None:
    """Give responses another text, by key."""
    rows = read_shards(run.iteration(t).responses, Response)
    [path] = run.iteration(t).responses.iterdir()
    tokens = {key: tuple(text.encode()) for key, text in change.items()}
    files.write_rows(
        path,
        [
            Response(
                row.combat_id,
                row.model,
                change.get(key, row.text),
                tokens.get(key, row.token_ids),
                row.tokenizer,
                row.prompt_tokens,
                len(tokens.get(key, row.token_ids)),
                row.finish_reason,
            )
            for key, row in rows.items()
        ],
    )


def test_every_combat_is_counted_once_and_every_pair_written(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=40)
    advance(run, 1, upto="merge")
    stats, pairs = stats_of(run), read_pairs(run, 1)
    results = list(files.read_rows(run.iteration(1).combats, Result))
    assert stats.combats == len(results) == sum(stats.reasons.values()) == 40
    assert stats.reasons["pair"] == len(pairs) == sum(result.winner is not None for result in results)
    assert sum(stats.wins.values()) == sum(stats.losses.values()) == len(pairs)
    assert sum(judge.votes for judge in stats.judges.values()) == 2 * 40 * 2
    assert [result.combat_id for result in results] == [combat.combat_id for combat in run.plan(1)]


def test_a_pair_holds_the_better_response_as_it_was_sampled(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="merge")
    said = read_shards(run.iteration(1).responses, Response)
    for pair in read_pairs(run, 1):
        chosen, rejected = (said[f"{pair.combat_id}/{model}"] for model in pair.models)
        assert pair.scores[0] > pair.scores[1]
        assert (pair.chosen, pair.chosen_token_ids) == (chosen.text, chosen.token_ids)
        assert (pair.rejected, pair.rejected_token_ids) == (rejected.text, rejected.token_ids)
        assert pair.finished == (True, True)


def test_equal_and_empty_responses_make_no_pair_and_are_counted(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    first, second, *_ = run.plan(1)
    rewrite(
        run,
        {
            f"{first.combat_id}/{first.models[0]}": "   ",
            f"{second.combat_id}/{second.models[0]}": "the same",
            f"{second.combat_id}/{second.models[1]}": " the same\n",
        },
    )
    advance(run, 1, upto="merge")
    assert stats_of(run).reasons["empty"] == 1
    assert stats_of(run).reasons["equal"] == 1
    assert {first.combat_id, second.combat_id}.isdisjoint(pair.combat_id for pair in read_pairs(run, 1))


def test_a_judge_that_is_mostly_unreadable_stops_the_merge_which_shows_what_it_wrote(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        combats=20,
        engine={"kind": "scripted", "scripted": {"unreadable": {"model2": 0.95}}},
        judging={"retries": 0},
    )
    with pytest.raises(SpartaError) as error:
        advance(run, 1, upto="merge")
    said = str(error.value)
    assert "votes of judge model2 could not be read" in said
    assert said.count("'I would rather not say.'") == 3
    assert "judging.max_missing is 50%" in said
    assert not run.iteration(1).standing.exists() and not run.iteration(1).preferences.exists()
    # The share that the message proposes is accepted.
    accepted = re.search(r"--set judging.max_missing=([0-9.]+);", said)
    assert accepted is not None
    judging = run.recipe.judging.model_copy(update={"max_missing": float(accepted[1])})
    run.recipe = run.recipe.model_copy(update={"judging": judging})
    advance(run, 1, upto="merge")


def test_a_judge_that_is_sometimes_unreadable_is_counted(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        combats=40,
        engine={"kind": "scripted", "scripted": {"unreadable": {"model2": 0.3}}},
        judging={"retries": 0},
    )
    advance(run, 1, upto="merge")
    judge = stats_of(run).judges["model2"]
    missing = [vote for vote in read_shards(run.iteration(1).votes, Vote).values() if vote.score is None]
    assert 0 < judge.missing == len(missing) < judge.votes / 2
    assert stats_of(run).judges["model1"].missing == 0


def test_missing_votes_on_empty_responses_are_not_held_against_the_judge(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        engine={"kind": "scripted", "scripted": {"unreadable": {"model2": 1.0}}},
        judging={"retries": 0, "max_missing": 0.0},
    )
    advance(run, 1, upto="generate")
    judged = [combat for combat in run.plan(1) if "model2" not in combat.models]
    rewrite(run, {f"{combat.combat_id}/{model}": "" for combat in judged for model in combat.models})
    advance(run, 1, upto="merge")
    assert stats_of(run).judges["model2"].votes == 0


@pytest.mark.parametrize(
    ("folder", "said"), [("votes", "judging is not"), ("responses", "generation is not")]
)
def test_half_an_iteration_is_refused(folder: str, said: str, tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="judge")
    [path] = (run.iteration(1).root / folder).iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(SpartaError, match=said):
        Merge().execute(run, 1)
    assert not run.iteration(1).standing.exists()


@pytest.mark.parametrize("folder", ["votes", "responses"])
def test_a_row_of_a_combat_that_was_never_planned_is_named(folder: str, tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="judge")
    [path] = (run.iteration(1).root / folder).iterdir()
    path.write_text(path.read_text().replace('"01-00"', '"01-99"', 1))
    with pytest.raises(SpartaError, match="01-99"):
        Merge().execute(run, 1)


def test_the_order_of_rows_and_files_changes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="merge")
    iteration = run.iteration(1)
    names = (iteration.combats, iteration.preferences, iteration.standing)
    before = [path.read_bytes() for path in names]
    for folder in (iteration.votes, iteration.responses):
        [path] = folder.iterdir()
        lines = path.read_bytes().splitlines(keepends=True)
        (folder / "a1-00003.jsonl").write_bytes(b"".join(reversed(lines[::2])))
        path.write_bytes(b"".join(reversed(lines[1::2])))
    Merge().execute(run, 1)
    assert [path.read_bytes() for path in names] == before
