"""The log of test-set accesses: rows stay, and a change is detected."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import begin

from sparta.commands.begin import check_state
from sparta.commands.launch import launch
from sparta.commands.launch_request import LaunchRequest
from sparta.errors import SpartaError
from sparta.evaluation import holdout_log
from sparta.evaluation.holdout_log import (
    HoldoutAccess,
    accesses_so_far,
    holdout_log_file,
    record_accesses,
    seal_file,
)
from sparta.evaluation.holdout_log import _seal as sealed
from sparta.screen import Screen
from sparta.store.layout import StateDir
from sparta.store.run import Run


def look(checkpoint: str) -> HoldoutAccess:
    return HoldoutAccess("toy", checkpoint, "v1", "best", "toy", (0, 1), 5, "way")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = begin(tmp_path, models=3, combats=4)
    record_accesses(run.state, [look("iter_00-a"), look("iter_01-b")])
    return run


def test_rows_are_added_and_the_old_ones_stay_as_they_are(run: Run) -> None:
    before = holdout_log_file(run.state).read_bytes()
    [noted] = record_accesses(run.state, [look("iter_02-c")])
    assert noted.number == 3
    assert holdout_log_file(run.state).read_bytes().startswith(before)
    assert len(accesses_so_far(run.state)) == 3
    check_state(run)


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"iter_01-b", b"iter_01-c"))


def shorten(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def swap(path: Path) -> None:
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))


def double(path: Path) -> None:
    path.write_bytes(2 * path.read_bytes())


def add(path: Path) -> None:
    """A look that claims to be the first one of its kind."""
    path.write_bytes(
        path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0].replace(b"iter_00-a", b"iter_02-c")
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit, r"was changed after it was written, or .*looks\.json was"),
        (shorten, r"was changed after it was written, or .*looks\.json was"),
        (swap, r"was changed after it was written, or .*looks\.json was"),
        (double, r"was changed after it was written, or .*looks\.json was"),
        (add, r"was changed after it was written, or .*looks\.json was"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_row_that_was_changed_or_is_gone_stops_the_next_command(
    run: Run, change: Callable[[Path], None], words: str
) -> None:
    change(holdout_log_file(run.state))
    for attempt in (
        lambda: launch(LaunchRequest(state=run.state.root, iterations=1), Screen()),
        lambda: record_accesses(run.state, [look("iter_02-c")]),
    ):
        with pytest.raises(SpartaError, match=rf"looks\.jsonl {words}: restore it"):
            attempt()


def test_a_row_whose_writer_died_before_the_seal_counts(run: Run) -> None:
    seal = seal_file(run.state).read_bytes()
    record_accesses(run.state, [look("iter_02-c")])
    seal_file(run.state).write_bytes(seal)
    assert [each.checkpoint for each in accesses_so_far(run.state)] == ["iter_00-a", "iter_01-b", "iter_02-c"]
    record_accesses(run.state, [look("iter_03-d")])
    edit(holdout_log_file(run.state))
    with pytest.raises(SpartaError, match="was changed"):
        accesses_so_far(run.state)


def test_a_first_access_whose_writer_died_before_the_seal_counts(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    holdout_log_file(run.state).unlink()
    seal_file(run.state).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(holdout_log, "_seal", lambda state, lines: None if lines else sealed(state, lines))
        record_accesses(run.state, [look("iter_00-a")])
    check_state(run)
    assert [each.checkpoint for each in accesses_so_far(run.state)] == ["iter_00-a"]


def edit_seal(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"rows": 2', b'"rows": 1'))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, r"looks\.json is missing: restore it from a backup"),
        (edit_seal, r"looks\.jsonl was changed after it was written, or .*looks\.json was"),
        (double, r"looks\.json is not a valid Seal .*: restore it from a copy"),
    ],
)
def test_a_seal_that_was_changed_or_is_gone_stops_the_next_command(
    run: Run, change: Callable[[Path], None], words: str
) -> None:
    change(seal_file(run.state))
    with pytest.raises(SpartaError, match=words):
        launch(LaunchRequest(state=run.state.root, iterations=1), Screen())


def test_a_log_of_version_0_1_0_has_no_seal_until_the_next_access(run: Run) -> None:
    seal_file(run.state).unlink()
    run.info = msgspec.structs.replace(run.info, day="")
    run.save()
    check_state(Run.open(run.state))
    record_accesses(run.state, [look("iter_02-c")])
    assert seal_file(run.state).is_file()


def test_a_branch_of_a_run_whose_accesses_have_no_seal_has_one(run: Run, tmp_path: Path) -> None:
    seal_file(run.state).unlink()
    run.info = msgspec.structs.replace(run.info, day="")
    run.save()
    target = StateDir(tmp_path / "branch")
    launch(LaunchRequest(resume=run.iteration(0).root, fork=target.root, iterations=1), Screen())
    check_state(Run.open(target))
    assert seal_file(target).is_file() and len(accesses_so_far(target)) == 2


def test_a_branch_inherits_the_accesses_and_their_seal(run: Run, tmp_path: Path) -> None:
    target = StateDir(tmp_path / "branch")
    launch(LaunchRequest(resume=run.iteration(0).root, fork=target.root, iterations=1), Screen())
    assert accesses_so_far(target) == accesses_so_far(run.state)
    shorten(holdout_log_file(target))
    with pytest.raises(SpartaError, match="was changed"):
        check_state(Run.open(target))
