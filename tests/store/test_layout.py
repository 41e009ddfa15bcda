"""The paths of a run, and which names are allowed in paths."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparta.errors import SpartaError
from sparta.names import check_model_name
from sparta.store.layout import StateDir, parse_iteration


def test_iterations_are_numbered_with_two_digits_and_with_three_from_a_hundred_on() -> None:
    state = StateDir(Path("state"))
    assert [state.iteration(t).root.name for t in (0, 5, 99, 100)] == [
        "iter_00",
        "iter_05",
        "iter_99",
        "iter_100",
    ]


def test_only_folders_that_are_named_like_iterations_are_listed(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    assert state.iterations() == []
    for name in ("iter_100", "iter_02", "iter_00", "iter_5", "iter_007", "iter_03.old", "jobs"):
        (state.root / name).mkdir(parents=True)
    (state.root / "iter_01").touch()
    assert state.iterations() == [0, 2, 100]


def test_an_iteration_is_committed_when_its_manifest_is_there(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    for t in range(3):
        state.iteration(t).root.mkdir()
    assert state.last_committed() is None
    for t in range(2):
        state.iteration(t).manifest.touch()
    assert state.committed() == [0, 1]
    assert state.last_committed() == 1


def test_a_person_names_an_iteration_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state" / "iter_05"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_iteration("state/iter_05/") == (StateDir(Path("state")), 5)
    monkeypatch.chdir(folder)
    assert parse_iteration(".") == (StateDir(tmp_path / "state"), 5)


@pytest.mark.parametrize("path", ["state", "state/iter_5", "5", "state/iter_05/plan.jsonl", "/"])
def test_what_is_no_iteration_is_refused_with_an_example(path: str) -> None:
    with pytest.raises(SpartaError, match="such as state/iter_05"):
        parse_iteration(path)


def test_an_iteration_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "iter_02").mkdir()
    with pytest.raises(SpartaError, match=r"iter_09 does not exist: .* holds iter_02;"):
        parse_iteration(tmp_path / "iter_09")


@pytest.mark.parametrize("name", ["qwen2.5-7b", "A_1", "_x", "7b", "m" * 64, "a.b-c"])
def test_ordinary_model_names_become_paths(name: str) -> None:
    assert StateDir(Path("s")).iteration(1).adapter(name) == Path("s/iter_01/adapters") / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", ".hidden", "-rf", "a/b", "a\\b", "a b", "é", "m" * 65, "a\n", "a\0", "~x"]
)
def test_dangerous_model_names_are_refused(name: str) -> None:
    with pytest.raises(SpartaError, match="rename it in the recipe"):
        StateDir(Path("s")).iteration(1).adapter(name)


@given(st.text(max_size=70))
def test_no_accepted_name_leaves_its_folder(name: str) -> None:
    try:
        check_model_name(name)
    except SpartaError:
        return
    assert (Path("/s/adapters") / name).resolve().parent == Path("/s/adapters")
