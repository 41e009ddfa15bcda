"""A lost run.json never loses results: commands refuse the state or set it aside whole, and the message says what to restore."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.expert_recipes import write_school
from support.openings import begin_or_continue
from support.scripted_run import advance, begin, committed, sentence, typed, write_recipe

from sparta.errors import SpartaError
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.run import Run


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "lock" not in path.parts
    }


def lose(run: Run) -> bytes:
    kept = run.state.run_json.read_bytes()
    run.state.run_json.unlink()
    return kept


def half_trained(folder: Path) -> Run:
    """Two experts of four are trained; the third one's data was changed for a while."""
    run = begin_or_continue(StateDir(folder / "state"), load(write_school(folder)))
    path = folder / "lessons" / "cem.jsonl"
    before = path.read_text()
    path.write_text(before.replace("cem 3?", "cem 4?"))
    with pytest.raises(SpartaError):
        advance(run, 0)
    path.write_text(before)
    return run


def trained(folder: Path) -> Run:
    run = begin_or_continue(StateDir(folder / "state"), load(write_school(folder)))
    advance(run, 0)
    return run


def played(folder: Path) -> Run:
    run = begin(folder)
    advance(run, 1)
    return run


def planned(folder: Path) -> Run:
    run = begin(folder)
    advance(run, 1, upto="plan")
    return run


def without_pool(folder: Path) -> Run:
    """Only the files of the jobs show that experts were in training."""
    run = half_trained(folder)
    shutil.rmtree(run.iteration(0).root)
    return run


@pytest.mark.parametrize("make", [half_trained, trained, played, planned, without_pool])
@pytest.mark.parametrize("other", [False, True])
def test_what_a_run_without_its_run_json_has_made_is_not_touched(
    make: Callable[[Path], Run], other: bool, tmp_path: Path
) -> None:
    run = make(tmp_path)
    kept, before = lose(run), content(run.state.root)
    recipe, state = tmp_path / "recipe.yaml", run.state.root
    settings = ("--set", "seed=7") if other else ()
    for dry_run in ((), ("--dry-run",)):
        said = sentence(typed("launch", "--recipe", recipe, "--state", state, *settings, *dry_run))
        assert f"{state / 'run.json'} is missing" in said and "restore run.json from a copy" in said
        assert content(state) == before
    run.state.run_json.write_bytes(kept)
    if make is not without_pool:
        done = typed("launch", "--recipe", recipe, "--state", state, "--iters", 1)
        assert done.returncode == 0, done.stderr


def test_every_command_says_that_the_run_json_is_lost(tmp_path: Path) -> None:
    state = played(tmp_path).state.root
    (state / "run.json").unlink()
    for command, arguments in (
        ("status", [state]),
        ("evaluate", [state, "--tasks", "toy"]),
        ("launch", ["--resume", state / "iter_01"]),
        ("launch", ["--resume", state / "iter_01", "--fork", tmp_path / "branch"]),
        ("launch", ["--state", state, "--cancel"]),
        ("init_pool", ["--state", state]),
    ):
        assert "restore run.json from a copy" in sentence(typed(command, *arguments)), command
    assert not (tmp_path / "branch").exists()


@pytest.mark.parametrize("other", [False, True])
def test_a_committed_pool_without_a_run_is_set_aside_whole_and_can_be_put_back(
    other: bool, tmp_path: Path
) -> None:
    """A launch that was killed before there was a run may have left it, and then the same command must continue."""
    state = begin(tmp_path).state
    kept, before = lose(Run.open(state)), committed(state.root)
    settings = ("--set", "seed=7") if other else ()
    recipe = tmp_path / "recipe.yaml"
    done = typed("launch", "--recipe", recipe, "--state", state.root, "--iters", 1, *settings)
    assert done.returncode == 0, done.stderr
    [aside] = state.superseded.iterdir()
    said = " ".join(done.stdout.split())
    assert f"{state.iteration(0).root} has no run.json; it was set aside in {aside}" in said
    assert "restore run.json from a copy" in said
    assert content(aside) == before
    assert state.committed() == [0, 1]
    (aside / "run.json").write_bytes(kept)
    aside.rename(tmp_path / "again")
    done = typed("launch", "--state", tmp_path / "again", "--iters", 1)
    assert done.returncode == 0, done.stderr


def test_a_half_copied_pool_is_set_aside_too_and_the_next_one_has_nothing_of_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    half = state.iteration(0).adapters / "half"
    half.mkdir(parents=True)
    (half / "adapter_config.json").write_text("{}")
    run = begin_or_continue(state, load(write_recipe(tmp_path)))
    assert sorted(path.name for path in run.iteration(0).adapters.iterdir()) == list(run.models)
    [aside] = state.superseded.iterdir()
    assert (aside / "iter_00" / "adapters" / "half" / "adapter_config.json").is_file()
    begin_or_continue(state, None)
