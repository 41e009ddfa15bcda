"""Adapters that were removed on purpose do not count as lost; everything else still does."""

from pathlib import Path

import pytest
from support.fake_tasks import Quiz, complete, questions
from support.openings import begin_or_continue, fork, go_back
from support.scripted_run import advance, begin, rehearsal, sentence, typed

from sparta.commands.begin import check_state
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.evaluation.items import freeze_items
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.pruned import Pruned, prune, pruned_file, read_pruned
from sparta.store.run import Run
from sparta.tasks import registry


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = begin(tmp_path, models=3, combats=6, iterations=2)
    for t in (1, 2):
        advance(made, t)
    return made


def weights(run: Run, t: int) -> list[Path]:
    return sorted(run.iteration(t).adapters.glob("*/adapter_model.safetensors"))


def test_a_pruned_run_still_verifies(run: Run) -> None:
    removed = weights(run, 1)
    size = sum(path.stat().st_size for path in removed)
    assert prune(run.state, removed, "keep: last") == size
    assert not any(path.exists() for path in removed)
    check_state(run)
    assert len(read_pruned(run.state).files) == 3
    # The same again changes nothing, and adding to it keeps what is noted.
    assert prune(run.state, removed, "keep: last") == 0
    prune(run.state, weights(run, 0), "keep: last")
    assert len(read_pruned(run.state).files) == 6
    check_state(run)


def test_what_was_not_noted_is_still_missed(run: Run) -> None:
    first, second, _ = weights(run, 1)
    prune(run.state, [first], "keep: last")
    second.unlink()
    with pytest.raises(SpartaError, match=f"{second} is missing"):
        check_state(run)


def test_what_was_noted_and_is_still_there_must_be_as_committed(run: Run) -> None:
    path, *_ = weights(run, 1)
    content = path.read_bytes()
    prune(run.state, [path], "keep: last")
    # Killed before it was removed, or restored.
    path.write_bytes(content)
    check_state(run)
    path.write_bytes(content + b"x")
    with pytest.raises(SpartaError, match="was changed after the commit"):
        check_state(run)


def test_a_run_does_not_go_on_from_a_removed_pool(run: Run, tmp_path: Path) -> None:
    prune(run.state, weights(run, 2), "keep: chosen in study.yaml")
    recipe = rehearsal(tmp_path, models=3, combats=6, iterations=3)
    with pytest.raises(
        SpartaError,
        match=r"was removed on purpose \(keep: chosen in study.yaml\), and the iteration after 2 needs it",
    ):
        begin_or_continue(run.state, recipe)
    assert "removed on purpose" in sentence(typed("launch", "--state", run.state.root, "--iters", 4))
    done = typed("launch", "--state", run.state.root)
    assert done.returncode == 0 and "nothing to do" in done.stdout


def test_going_back_takes_the_note_away_with_the_iterations(run: Run) -> None:
    prune(run.state, [*weights(run, 0), *weights(run, 2)], "keep: none")
    before = read_pruned(run.state)
    go_back(run.state, 1)
    assert len(read_pruned(run.state).files) == 3
    [aside] = run.state.superseded.iterdir()
    assert before.files == {
        **read_pruned(run.state).files,
        **files.read_json(aside / pruned_file(run.state).name, Pruned).files,
    }


def test_weights_made_again_after_going_back_are_missed_when_they_are_lost(run: Run) -> None:
    noted = {path: path.read_bytes() for path in weights(run, 2)}
    prune(run.state, list(noted), "keep: none")
    back = go_back(run.state, 1)
    advance(back, 2)
    assert {path: path.read_bytes() for path in weights(back, 2)} == noted
    check_state(back)
    for path in noted:
        path.unlink()
    with pytest.raises(SpartaError, match="is missing"):
        check_state(back)


def test_a_fork_takes_no_note_of_iterations_that_it_does_not_share(run: Run, tmp_path: Path) -> None:
    prune(run.state, weights(run, 2), "keep: none")
    branch = fork(run.state, 1, StateDir(tmp_path / "fork"), None)
    assert not pruned_file(branch.state).exists()
    advance(branch, 2)
    for path in weights(branch, 2):
        path.unlink()
    with pytest.raises(SpartaError, match="is missing"):
        check_state(branch)


def test_a_new_run_after_a_lost_one_has_none_of_its_notes(run: Run, tmp_path: Path) -> None:
    prune(run.state, weights(run, 0), "keep: none")
    recipe = rehearsal(tmp_path, models=3, combats=6, iterations=2)
    for path in run.state.root.iterdir():
        if path.name not in ("iter_00", pruned_file(run.state).name):
            files.remove(path)
    again = begin_or_continue(run.state, recipe)
    assert not pruned_file(again.state).exists()


def test_scoring_everything_needs_no_removed_adapter_whose_answers_are_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiz = Quiz("quiz", splits={"validation": questions("v", 3, answer="x")})
    monkeypatch.setitem(registry.TASKS, "quiz", quiz)
    freeze_items(run, "quiz", "validation")
    complete(run, Evaluate("validation", {"quiz": ("iter_00", "iter_01")}))
    prune(run.state, weights(run, 1), "keep: last")
    every = Evaluate("validation", {"quiz": ("iter_00", "iter_01", "iter_02")})
    complete(run, every)
    assert not every.missing(run, 0)
    prune(run.state, weights(run, 2), "keep: last")
    other = Quiz("other", splits={"validation": questions("o", 3, answer="x")})
    monkeypatch.setitem(registry.TASKS, "other", other)
    freeze_items(run, "other", "validation")
    with pytest.raises(
        SpartaError, match=r"removed on purpose \(keep: last\), and a model that answers needs it"
    ):
        complete(run, Evaluate("validation", {"other": ("iter_02",)}))


def test_a_fork_takes_the_note_along(run: Run, tmp_path: Path) -> None:
    prune(run.state, weights(run, 1), "keep: last")
    fork = tmp_path / "fork"
    where = run.iteration(2).root
    done = typed("launch", "--resume", where, "--fork", fork, "--iters", 3)
    assert done.returncode == 0, done.stderr
    assert (fork / pruned_file(run.state).name).is_file()
    assert "removed on purpose" in sentence(
        typed("launch", "--resume", run.iteration(1).root, "--fork", tmp_path / "other")
    )
