"""SPIN: gold against the model's own answer, worked by hand; the pairs of the previous iteration are added; bad data."""

import json
from pathlib import Path

import pytest
from support.one_model_runs import write_case
from support.openings import begin_or_continue, fork
from support.scripted_run import advance

from sparta.chat.renderer import Renderer
from sparta.commands.begin import check_state
from sparta.engines.scripted import ByteTokenizer
from sparta.errors import SpartaError
from sparta.phases.merge import read_pairs
from sparta.phases.single.gold import gold_text
from sparta.phases.single.rows import Candidate, read_draws
from sparta.phases.train import example_of
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import ShardWriter
from sparta.tasks.base import Item


def begun(folder: Path, *settings: str, rows: list[dict[str, str]] | None = None) -> Run:
    recipe = write_case(folder, "spin", combats=3)
    if rows is not None:
        (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return begin_or_continue(StateDir(folder / "state"), load(recipe, settings))


def test_gold_against_own_by_hand(tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": f"question {n}", "answer": f"right {n}"} for n in range(3)]
    run = begun(tmp_path, rows=rows)
    advance(run, 1, "draw")
    said = {"q0": "wrong", "q1": " right 1\n", "q2": ""}
    with ShardWriter(run.iteration(1).root / "candidates", 0, 0, 1.0) as writer:
        for draw in read_draws(run, 1):
            text = said[draw.prompt_id]
            ids = (*text.encode(), ByteTokenizer.END)
            writer.write(
                Candidate(draw.draw_id, 0, "model1", text, ids, "scripted-bytes", 9, len(ids), "stop")
            )
    advance(run, 1, "oppose")
    [pair] = read_pairs(run, 1)
    assert (pair.chosen, pair.rejected) == ("right 0", "wrong")
    assert pair.models == ("", "model1") and pair.finished == (True, True)
    example = example_of(pair, Renderer(ByteTokenizer(), 999), "scripted-bytes")
    assert example.chosen_ids == (*b"right 0", ByteTokenizer.END)
    assert example.rejected_ids == (*b"wrong", ByteTokenizer.END)


def test_the_pairs_of_the_iteration_before_are_kept_in_and_no_older_ones(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for t in (1, 2, 3):
        advance(run, t)
    made = [[pair.combat_id[:2] for pair in read_pairs(run, t)] for t in (1, 2, 3)]
    assert made == [["01"] * 3, ["02"] * 3 + ["01"] * 3, ["03"] * 3 + ["02"] * 3]


def test_instructions_without_gold_are_refused_and_named(tmp_path: Path) -> None:
    rows = [{"id": f"q{n}", "prompt": "?", **({"answer": "!"} if n % 2 else {})} for n in range(9)]
    with pytest.raises(SpartaError) as error:
        begun(tmp_path, rows=rows)
    assert "spin needs gold answers, which 5 of the 9 instructions" in str(error.value)
    assert "(q0, q2, q4, ...)" in str(error.value)
    assert not (tmp_path / "state").exists()


def test_gold_that_was_edited_is_named(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.state.gold.write_text(run.state.gold.read_text().replace("right 1", "right 2"))
    with pytest.raises(SpartaError, match="gold.jsonl is missing or was changed"):
        check_state(Run.open(run.state))


def test_a_branch_takes_gold_along_and_one_without_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path)
    advance(run, 1)
    branch = fork(run.state, 1, StateDir(tmp_path / "branch"), None)
    advance(branch, 2)
    check_state(branch)
    sparta = begun(tmp_path / "other", "method=sparta")
    assert not sparta.state.gold.exists()
    with pytest.raises(SpartaError, match="has no gold answers, which the method spin needs"):
        other = sparta.recipe.model_copy(update={"method": "spin"})
        fork(sparta.state, 0, StateDir(tmp_path / "late"), other)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Item("a", (), reference=" whole \n", answer="short"), "whole"),
        (Item("a", (), answer="short"), "short"),
        (Item("a", (), answer="B", choices={"A": "no", "B": "yes"}), "yes"),
        (Item("a", ()), ""),
        (Item("a", (), reference=" "), ""),
    ],
)
def test_gold_as_a_model_would_write_it(item: Item, text: str) -> None:
    assert gold_text(item) == text
