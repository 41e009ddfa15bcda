"""Choices made on the validation split of another task (evaluate.py --select-on): which ones count, and that this is said."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from analysis.catalogue import TABLES
from analysis.chosen import counted
from analysis.frames import load
from analysis.headline import Headline, Keep, ValidationScore, headline
from analysis.paper_tables import table1
from analysis.scoreboard import scoreboard
from analysis.study_headline import study_answers
from sparta.evaluation.summary import CheckpointChoice, read_summary, summary_file
from sparta.store import files
from sparta.store.layout import StateDir


def rewritten(state: Path, folder: Path, keep_own: bool) -> Path:
    """A copy of `state` whose gsm8k has choices made on medqa, before its own ones if these are kept."""
    copy = folder / "copy"
    shutil.copytree(state, copy, ignore=shutil.ignore_patterns("jobs"))
    summary = read_summary(StateDir(copy))
    scores = summary.tasks["gsm8k"]
    foreign = [
        replace(
            choice, chosen_on="medqa", test={name: replace(t, mean=0.01) for name, t in choice.test.items()}
        )
        for choice in scores.choices
    ]
    choices: list[CheckpointChoice] = [*foreign, *(scores.choices if keep_own else ())]
    tasks = {**summary.tasks, "gsm8k": replace(scores, choices=choices)}
    files.write_json(summary_file(StateDir(copy)), replace(summary, tasks=tasks))
    return copy


def test_a_tasks_own_choices_count_before_those_of_another(state: Path, tmp_path: Path) -> None:
    found, usual = load(rewritten(state, tmp_path, keep_own=True)), load(state)
    assert {"medqa", "gsm8k"} == set(found.choices[found.choices.task == "gsm8k"].chosen_on)
    for key, score in scoreboard(usual).cells.items():
        assert scoreboard(found).cells[key].mean == score.mean
    assert not [note for note in table1(found).notes if "chosen on" in note]
    assert (
        headline(found, found.sources[0]).gains[1].after == headline(usual, usual.sources[0]).gains[1].after
    )


def test_the_choices_of_another_task_count_where_there_are_no_others_and_it_is_said(
    state: Path, tmp_path: Path
) -> None:
    found = load(rewritten(state, tmp_path, keep_own=False))
    assert table1(found).frame.loc["sparta", "gsm8k"] == 0.01
    assert "Checkpoints scored on gsm8k were chosen on validation of medqa." in table1(found).notes
    head = headline(found, found.sources[0])
    [gain] = [gain for gain in head.gains if gain.task == "gsm8k"]
    assert gain.chosen_on == "medqa" and gain.in_words.endswith(", chosen on validation of medqa")
    assert "gsm8k" in TABLES["improvement"].make(found).frame.index


def test_a_run_scored_on_one_other_task_alone_has_an_answer(state: Path, tmp_path: Path) -> None:
    copy = rewritten(state, tmp_path, keep_own=False)
    summary = read_summary(StateDir(copy))
    files.write_json(summary_file(StateDir(copy)), replace(summary, tasks={"gsm8k": summary.tasks["gsm8k"]}))
    found = load(copy)
    head = headline(found, found.sources[0])
    assert "no checkpoints were scored" not in head.worked and "chosen on validation of medqa" in head.worked
    assert head.keep is not None and head.keep.why.startswith("chosen on validation of medqa, ")
    assert head.keep.why.endswith(" on test of gsm8k") and set(counted(found).chosen_on) == {"medqa"}


def kept(name: str, task: str | None, validation: float) -> Headline:
    score = None if task is None else ValidationScore(task, validation)
    return Headline("", (), "", False, (), Keep(name, f"why {name}", "", (f"serve {name}",), score), (), ())


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a")])
def test_of_a_study_the_model_to_keep_is_one_keep_chosen_by_validation(
    order: tuple[str, ...], state: Path
) -> None:
    heads = {
        "a": kept("iter_01-a", "gsm8k", 0.6),
        "b": kept("iter_02-b", "gsm8k", 0.8),
        "c": kept("iter_03-c", None, 0),
    }
    found = load(state)
    answer = study_answers(found, {name: heads[name] for name in order})[1]
    assert (answer.lead, list(answer.more), list(answer.commands)) == (
        "iter_02-b of b",
        ["why iter_02-b"],
        ["serve iter_02-b"],
    )
    heads["c"] = kept("iter_03-c", "medqa", 0.9)
    answer = study_answers(found, {name: heads[name] for name in order})[1]
    assert answer.lead == "One of each of 2 tasks, by validation"
    assert set(answer.more) == {
        "gsm8k: iter_02-b of b, why iter_02-b",
        "medqa: iter_03-c of c, why iter_03-c",
    }
    assert set(answer.commands) == {"serve iter_02-b", "serve iter_03-c"}
