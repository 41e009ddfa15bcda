"""Before anything is written, a launch or a dry run opens the run once and verifies its commits once."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from sparta.commands import launch as launching
from sparta.commands.launch import launch
from sparta.commands.launch_request import LaunchRequest
from sparta.errors import SpartaError
from sparta.screen import Screen
from sparta.store import manifest
from sparta.store.layout import IterationDir, StateDir
from sparta.store.lock import RunLock
from sparta.store.manifest import Manifest
from sparta.store.run import Run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of three committed iterations."""
    run = begin(tmp_path_factory.mktemp("original"))
    for t in (1, 2, 3):
        advance(run, t)
    return run.state.root


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "state"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often runs are opened and manifests are read, by folder, without changing either."""
    found, opens, reads = Counter[str](), Run.open, manifest.read_manifest

    def opened(state: StateDir) -> Run:
        found[f"open {state.root.name}"] += 1
        return opens(state)

    def read(iteration: IterationDir) -> Manifest:
        found[f"verify {iteration.root.parent.name}/{iteration.root.name}"] += 1
        return reads(iteration)

    monkeypatch.setattr(Run, "open", opened)
    monkeypatch.setattr(manifest, "read_manifest", read)
    return found


def verified(name: str, upto: int) -> Counter[str]:
    return Counter(f"verify {name}/iter_{t:02d}" for t in range(upto + 1))


def test_going_on_opens_the_run_once_and_verifies_its_chain_once(state: Path, counted: Counter[str]) -> None:
    launch(LaunchRequest(state=state, iterations=4), Screen())
    assert StateDir(state).last_committed() == 4
    assert counted == Counter(["open state"]) + verified("state", 3)


def test_going_back_with_other_options_opens_the_run_once_and_verifies_its_chain_once(
    state: Path, counted: Counter[str]
) -> None:
    launch(LaunchRequest(resume=state / "iter_01", iterations=2), Screen())
    assert StateDir(state).last_committed() == 2
    assert counted == Counter(["open state"]) + verified("state", 1)


def test_branching_opens_the_parent_once_and_verifies_its_chain_once(
    state: Path, counted: Counter[str]
) -> None:
    asked = LaunchRequest(resume=state / "iter_02", fork=state.parent / "branch", iterations=3)
    launch(asked, Screen())
    assert StateDir(state.parent / "branch").last_committed() == 3
    assert counted == Counter(["open state"]) + verified("state", 2)
    # The branch that is there goes on; of its parent nothing but the name counts.
    counted.clear()
    launch(asked, Screen())
    assert counted == Counter(["open state", "open branch"]) + verified("branch", 3)


@pytest.mark.parametrize(
    ("asked", "upto"),
    [
        (LaunchRequest(state=Path("state"), iterations=5), 3),
        (LaunchRequest(resume=Path("state/iter_02")), 2),
        (LaunchRequest(resume=Path("state/iter_01"), fork=Path("branch"), settings=("combats=9",)), 1),
    ],
)
def test_a_dry_run_opens_and_verifies_once_too(
    asked: LaunchRequest, upto: int, state: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(state.parent)
    opening = launching.resolve(asked, Screen())
    assert opening.first == upto + 1
    assert counted == Counter(["open state"]) + verified("state", upto)


def test_a_run_that_another_launch_changed_meanwhile_is_resolved_again(
    state: Path, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It continues from where the other launch left it, not from where it was when this launch first read it."""
    resolve = launching.resolve

    def slowly(asked: LaunchRequest, screen: Screen) -> object:
        monkeypatch.setattr(launching, "resolve", resolve)
        opening = resolve(asked, screen)
        launch(LaunchRequest(state=state, iterations=4), screen)
        counted.clear()
        return opening

    monkeypatch.setattr(launching, "resolve", slowly)
    launch(LaunchRequest(resume=state / "iter_02", iterations=3), Screen())
    assert StateDir(state).last_committed() == 3
    assert counted == Counter(["open state"]) + verified("state", 2)
    [aside] = (state / "superseded").iterdir()
    assert sorted(path.name for path in aside.glob("iter_*")) == ["iter_03", "iter_04"]


def test_a_run_that_is_driven_is_refused_before_its_files_are_read(
    state: Path, counted: Counter[str]
) -> None:
    with RunLock(StateDir(state), print), pytest.raises(SpartaError, match="is being driven by"):
        launch(LaunchRequest(resume=state / "iter_01"), Screen())
    assert not counted
