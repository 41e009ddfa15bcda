"""Methods that align one model on the real SLURM: in job arrays, and with a killed driver, they commit the same bytes as one process."""

from pathlib import Path

import pytest
from support.one_model_runs import CASES, write_case
from support.openings import begin_or_continue
from support.scripted_run import DEADLINE, Launched, advance, manifests, typed, wait_until

from sparta.recipes.load import load
from sparta.store.layout import StateDir

pytestmark = pytest.mark.usefixtures("devcluster")


def here(folder: Path, recipe: Path) -> dict[str, bytes]:
    """The manifests of one process, up to iteration 1."""
    run = begin_or_continue(StateDir(folder / "here"), load(recipe))
    advance(run, 1)
    return manifests(run.state.root)


@pytest.mark.parametrize("method", CASES)
def test_on_slurm_it_commits_the_same_bytes(method: str, tmp_path: Path, launched: Launched) -> None:
    recipe = write_case(tmp_path, method, iterations=1)
    driver = launched("--recipe", recipe, "--state", tmp_path / "slurm", "--profile", "devcluster")
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err
    assert manifests(tmp_path / "slurm") == here(tmp_path, recipe)


def test_a_detached_chain_whose_driver_is_gone_commits_the_same_bytes(tmp_path: Path) -> None:
    recipe = write_case(tmp_path, "meta_rewarding", iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    done = typed("launch", "--recipe", recipe, "--state", state.root, "--profile", "devcluster", "--detach")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: 1 in state.committed())
    assert manifests(state.root) == here(tmp_path, recipe)


def test_a_killed_driver_is_followed_by_another_to_the_same_bytes(tmp_path: Path, launched: Launched) -> None:
    recipe = write_case(tmp_path, "self_rewarding", iterations=1)
    state = StateDir(tmp_path / "state")
    where = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster")
    first = launched(*where, "--set", "engine.scripted.delay=0.2")
    wait_until(lambda: any(state.iteration(1).root.glob("candidates/*.jsonl")) or first.poll() is not None)
    first.kill()
    first.communicate(timeout=DEADLINE)
    _, err = (second := launched(*where)).communicate(timeout=DEADLINE)
    assert second.returncode == 0, err
    assert manifests(state.root) == here(tmp_path, recipe)
