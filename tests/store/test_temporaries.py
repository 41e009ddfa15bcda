"""Temporary files of killed writers are removed, those of live writers are kept."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.scripted_run import typed, write_recipe
from support.store_samples import left_by_the_dead

from sparta.commands.begin import set_aside
from sparta.errors import SpartaError
from sparta.store import temporaries
from sparta.store.cleanup import clear_abandoned
from sparta.store.files import put_tree, write_bytes
from sparta.store.layout import StateDir
from sparta.store.temporaries import temporary_beside


def test_temporaries_of_dead_writers_are_removed_everywhere_and_those_of_live_ones_stay(
    tmp_path: Path,
) -> None:
    state = StateDir(tmp_path)
    places = (
        state.run_json,
        state.instructions,
        state.iteration(3).root,
        state.iteration(2).pool,
        state.iteration(2).adapter("ada"),
        state.jobs / "iter_02" / "train" / "a0.json",
        state.jobs / "iter_02" / "train" / "start-ada" / "adapter_config.json",
        state.code / "0123456789ab",
        state.evals / "own" / "test" / "items.jsonl",
        state.calls / "calls.jsonl",
        state.lock / "free.x",
    )
    left = left_by_the_dead(*places) + left_by_the_dead(*places, kind="folders")
    living = [temporary_beside(place) for place in places]
    for path in living:
        path.touch()
    assert all(path.exists() for path in left)
    clear_abandoned(state)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in living)


def test_other_runs_models_and_a_users_own_files_are_not_touched(tmp_path: Path) -> None:
    left = left_by_the_dead(
        tmp_path / "other" / "run.json",
        tmp_path / "models" / "base",
        tmp_path / "superseded" / "0" / "pool.json",
    )
    own = tmp_path / ".notes.tmp"
    own.touch()
    clear_abandoned(StateDir(tmp_path))
    assert all(path.exists() for path in (*left, own))


def test_what_is_set_aside_has_no_temporary_of_a_dead_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(tmp_path)
    adapters = state.iteration(2).adapters
    (adapters / "ada").mkdir(parents=True)
    left = left_by_the_dead(adapters / "bea", kind="folders")

    def refused(path: object, **options: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        clear_abandoned(state)
        with pytest.raises(SpartaError, match="did not answer"):
            set_aside(state, [state.iteration(2).root])
        assert left[0].exists() and (adapters / "ada").exists()
    aside = set_aside(state, [state.iteration(2).root])
    assert [path.name for path in (aside / "iter_02" / "adapters").iterdir()] == ["ada"]


@pytest.mark.parametrize(("age", "stays"), [(10, True), (7200, False)])
def test_a_writer_of_another_machine_is_judged_by_its_last_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, stays: bool
) -> None:
    [left] = left_by_the_dead(tmp_path / "jobs" / "adapter", kind="folders")
    inside = left / "weights"
    inside.touch()
    when = inside.stat().st_mtime
    os.utime(left, (when - 90_000, when - 90_000))
    os.utime(inside, (when - age, when - age))
    monkeypatch.setattr(temporaries, "_machine", lambda: "00000000")
    clear_abandoned(StateDir(tmp_path))
    assert left.exists() is stays


def test_the_next_launch_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    recipe, state = write_recipe(tmp_path, models=3, combats=2), tmp_path / "state"
    launch = ("launch", "--recipe", recipe, "--state", state, "--iters", 1)
    assert typed(*launch).returncode == 0
    left = left_by_the_dead(state / "run.json", state / "iter_01" / "adapters" / "model0")
    assert typed(*launch).returncode == 0
    assert not [path for path in left if path.exists()]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"

    def write(folder: Path) -> None:
        write_bytes(folder / "inner" / "file", b"x")

    def fail(folder: Path) -> None:
        write(folder)
        raise RuntimeError("half done")

    with pytest.raises(RuntimeError):
        put_tree(target, fail)
    assert list(target.parent.iterdir()) == []
    [left] = left_by_the_dead(target, kind="folders")
    other = temporary_beside(target.with_name("folder2"))
    other.mkdir()
    assert put_tree(target, write)
    assert not left.exists() and other.exists()
    assert (target / "inner" / "file").read_bytes() == b"x"


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "link"):
        assert not put_tree(tmp_path / name, lambda folder: pytest.fail("nothing is written"))

    def overtaken(folder: Path) -> None:
        write_bytes(folder / "file", b"mine")
        write_bytes(tmp_path / "late" / "file", b"theirs")

    assert not put_tree(tmp_path / "late", overtaken)
    assert (tmp_path / "late" / "file").read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "late", "link"]
