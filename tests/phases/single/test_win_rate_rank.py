"""SPPO: from grades or a model's preferences to win rates to pairs, worked by hand; unusable recipes."""

import json
from pathlib import Path

import pytest
from support.one_model_runs import write_case
from support.openings import begin_or_continue
from support.scripted_run import advance
from support.tiny_classifier import bert_classifier, pair_ranker

from sparta.engines.preference_model import Preferred
from sparta.engines.scripted import ByteTokenizer
from sparta.errors import SpartaError
from sparta.methods.registry import method_of
from sparta.phases.merge import read_pairs
from sparta.phases.single.prefer import by_grades, spread
from sparta.phases.single.rows import Candidate, Ranking, WinRates, read_draws
from sparta.phases.single.win_rate_rank import win_rates
from sparta.recipes.load import load
from sparta.status.collect import status_of
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, read_shards
from sparta.store.stats import IterationStats

GOLD = {"kind": "gold", "noise": 0.1}


def begun(folder: Path, preference: dict[str, object] | None = None, **changes: object) -> Run:
    baseline = {"candidates": 4, "preference": preference or GOLD}
    recipe = write_case(folder, "sppo", combats=3, baseline=baseline)
    rows = changes.get("rows")
    if isinstance(rows, list):
        (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return begin_or_continue(StateDir(folder / "state"), load(recipe))


def test_right_beats_wrong_with_the_probability_that_the_noise_leaves() -> None:
    assert by_grades([1.0, 0.0, 1.0, None], 0.1) == (
        (0.5, 0.9, 0.5, None),
        (0.1, 0.5, 0.1, None),
        (0.5, 0.9, 0.5, None),
        (None, None, None, None),
    )


def test_a_win_rate_is_the_mean_over_all_candidates_itself_among_them() -> None:
    rates, counted = win_rates(
        [(0.5, 0.9, 0.6, None), (0.1, 0.5, 0.2, None), (0.4, 0.8, 0.5, None), (None,) * 4]
    )
    assert rates[:3] == pytest.approx([2.0 / 3, 0.8 / 3, 1.7 / 3]) and rates[3] is None
    assert counted == [2, 2, 2, 0]


def test_equal_candidates_are_even_and_have_the_preferences_of_their_text() -> None:
    table = Preferred(((0.5, 0.7), (0.3, 0.5)), tokens=9)
    assert spread(table, [0, 1, 0, None]) == (
        (0.5, 0.7, 0.5, None),
        (0.3, 0.5, 0.3, None),
        (0.5, 0.7, 0.5, None),
        (None, None, None, None),
    )


def write_candidates(run: Run, said: dict[str, list[str]]) -> None:
    """The candidates of iteration 1, by prompt."""
    advance(run, 1, "draw")
    with ShardWriter(run.iteration(1).root / "candidates", 0, 0, 1.0) as writer:
        for draw in read_draws(run, 1):
            for number, text in enumerate(said[draw.prompt_id]):
                ids = (*text.encode(), ByteTokenizer.END)
                writer.write(
                    Candidate(
                        draw.draw_id, number, "model1", text, ids, "scripted-bytes", 9, len(ids), "stop"
                    )
                )


def test_from_gold_to_pairs_by_hand(tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": f"question {n}", "answer": "yes"} for n in range(3)]
    run = begun(tmp_path, rows=rows)
    write_candidates(
        run,
        {
            "q0": ["no", "yes", "yes ", ""],
            "q1": ["yes", "yes", "yes", ""],
            "q2": ["no", "nay", "never", "no"],
        },
    )
    advance(run, 1, "win_rate_rank")
    of_prompt = {draw.prompt_id: draw.draw_id for draw in read_draws(run, 1)}
    found = {row.draw_id: row for row in files.read_rows(run.iteration(1).root / "rankings.jsonl", Ranking)}
    mixed = found[of_prompt["q0"]]
    assert mixed.scores[:3] == pytest.approx([0.7 / 3, 1.9 / 3, 1.9 / 3]) and mixed.scores[3] is None
    assert (mixed.chosen, mixed.rejected, mixed.reason) == (1, 0, "pair")
    assert found[of_prompt["q1"]].reason == "equal"
    assert found[of_prompt["q2"]].reason == "tie", "all are wrong"
    [pair] = read_pairs(run, 1)
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    assert pair.scores == pytest.approx((1.9 / 3, 0.7 / 3))


QUESTIONS = [{"id": f"q{n}", "prompt": f"question {n}"} for n in range(3)]


def with_reward_model(folder: Path, rows: list[dict[str, str]] = QUESTIONS) -> Run:
    """A run with a reward model that reads a few characters and no more than 64 tokens."""
    return begun(folder, {"kind": "reward", "model": bert_classifier(folder / "reward")}, rows=rows)


def test_a_candidate_that_the_preference_model_cannot_read_is_missing_and_counted(tmp_path: Path) -> None:
    run = with_reward_model(tmp_path)
    write_candidates(
        run, {"q0": ["a", "四", "b", "c"], "q1": ["a", "b", "a", ""], "q2": ["a b " * 50, "b", "c", "c"]}
    )
    advance(run, 1)
    of_prompt = {draw.prompt_id: draw.draw_id for draw in read_draws(run, 1)}
    found = {row.draw_id: row for row in files.read_rows(run.iteration(1).root / "rankings.jsonl", Ranking)}
    assert found[of_prompt["q0"]].votes == (2, 0, 2, 2) and found[of_prompt["q0"]].scores[1] is None
    assert found[of_prompt["q2"]].votes == (0, 2, 2, 2)
    assert {row.reason for row in found.values()} == {"pair"}
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    # Pairs of different answers: 6, 2 and 5; one text of the first cannot be read, and one of the third.
    assert stats.comparisons is not None
    assert (stats.comparisons.missing, stats.comparisons.votes) == (6, 13)
    summary = method_of(run.recipe).summary(run, 1)
    assert "missing: 6 of 13 comparisons" in summary.notes[0]
    assert dict(zip(summary.columns, summary.rows[0], strict=True))["missing comparisons"] == "6/13"
    assert "missing: 6 of 13 comparisons" in status_of(run).iterations[0].outcome


def test_candidates_that_are_mostly_unreadable_stop_the_run(tmp_path: Path) -> None:
    run = with_reward_model(tmp_path)
    write_candidates(run, {f"q{n}": ["四", "五", "六", "a"] for n in range(3)})
    with pytest.raises(SpartaError) as error:
        advance(run, 1)
    assert "18 of 18 pairs of candidates could not be compared (100%, judging.max_missing is 50%)" in str(
        error.value
    )
    assert "reward could not read them" in str(error.value) and "baseline.preference.model=" in str(
        error.value
    )


def test_a_preference_model_that_cannot_read_the_instructions_is_refused(tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": "四加四" if n else "four"} for n in range(4)]
    with pytest.raises(SpartaError) as error:
        with_reward_model(tmp_path, rows)
    assert (
        "cannot read 3 of the first 4 instructions (its tokenizer has no tokens for a part of it: '四加四')"
        in str(error.value)
    )
    with pytest.raises(SpartaError, match="reads at most 64 tokens, and this has"):
        with_reward_model(tmp_path / "long", [{"id": "q", "prompt": "a b " * 50}])


def test_prompts_whose_candidates_are_equal_are_not_compared(tmp_path: Path) -> None:
    run = begun(tmp_path)
    advance(run, 1, "prefer")
    compared = set(read_shards(run.iteration(1).root / "win_rates", WinRates))
    candidates: dict[str, set[str]] = {}
    for row in read_shards(run.iteration(1).root / "candidates", Candidate).values():
        candidates.setdefault(row.draw_id, set()).add(row.text)
    assert compared == {draw_id for draw_id, texts in candidates.items() if len(texts) > 1}


def test_without_a_preference_model_it_is_refused(tmp_path: Path) -> None:
    recipe = load(write_case(tmp_path, "sppo"), ["baseline.preference=null"])
    with pytest.raises(SpartaError, match="sppo needs a preference model"):
        begin_or_continue(StateDir(tmp_path / "state"), recipe)


def test_gold_needs_answers_that_a_program_can_grade(tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": "?", "reference": "a long answer"} for n in range(4)]
    with pytest.raises(SpartaError, match=r"can grade .* 4 of the 4 instructions"):
        begun(tmp_path, rows=rows)


@pytest.mark.parametrize(
    ("preference", "said"),
    [
        ({"kind": "reward"}, "kind reward needs a model"),
        ({"kind": "gold", "model": "./m"}, "kind gold takes no model"),
        ({"kind": "ranker", "model": "./m", "noise": 0.1}, "noise applies only to kind gold"),
        ({"kind": "gold", "noise": 0.5}, "noise"),
    ],
)
def test_settings_of_a_preference_model_must_fit_its_kind(
    preference: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError, match=said):
        begun(tmp_path, preference)


def test_a_preference_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="cannot be loaded"):
        begun(tmp_path, {"kind": "reward", "model": str(tmp_path / "nowhere")})


def test_a_preference_model_of_the_hub_is_fetched_with_the_pool_and_missed_where_it_was_not(
    tmp_path: Path,
) -> None:
    preference = {"kind": "reward", "model": "hub:somebody/reward"}
    recipe = load(write_case(tmp_path, "sppo", baseline={"preference": preference}))
    assert "hub:somebody/reward" in recipe.of_the_hub
    with pytest.raises(SpartaError, match="hub:somebody/reward has not been fetched"):
        begin_or_continue(StateDir(tmp_path / "state"), recipe)


def test_the_folder_of_a_preference_model_is_taken_from_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    recipe = load(
        write_case(tmp_path, "sppo", baseline={"preference": {"kind": "reward", "model": "./mine"}})
    )
    assert recipe.baseline.preference is not None
    assert recipe.baseline.preference.model == str(tmp_path / "mine")


def test_a_ranker_of_the_published_format_compares_the_candidates_of_a_run(tmp_path: Path) -> None:
    model = pair_ranker(tmp_path / "ranker")
    runs = [begun(tmp_path / place, {"kind": "ranker", "model": model}) for place in ("one", "other")]
    for run in runs:
        advance(run, 1)
    rows = read_shards(runs[0].iteration(1).root / "win_rates", WinRates).values()
    assert rows
    for row in rows:
        assert row.read_tokens > 0
        for i, probabilities in enumerate(row.probabilities):
            assert all(p is not None and (p == 0.5) == (i == j) for j, p in enumerate(probabilities))
    same = read_shards(runs[1].iteration(1).root / "win_rates", WinRates).values()
    assert [row.probabilities for row in rows] == [row.probabilities for row in same]
