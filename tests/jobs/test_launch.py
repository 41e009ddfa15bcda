"""jobs/launch.py as a person uses it: begin, look, go on, go back, branch."""

from pathlib import Path

import pytest
from support.scripted_run import (
    ROOT,
    advance,
    begin,
    committed,
    manifests,
    sentence,
    typed,
    write_adapter,
    write_recipe,
)

from sparta.commands.launch import command_to_continue, launch
from sparta.commands.launch_request import LaunchRequest
from sparta.screen import Screen
from sparta.store.layout import StateDir
from sparta.store.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a recipe and a state of three iterations, and what the launch said."""
    folder = tmp_path_factory.mktemp("finished")
    done = typed("launch", "--recipe", write_recipe(folder), "--state", folder / "state")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_it_says_what_it_will_do_before_and_where_everything_is_after(finished: tuple[Path, str]) -> None:
    folder, said = finished
    before, _, after = said.partition("iteration 1 generate")
    for words in ("4 models: model0, model1, model2, model3", "12 combats", "48 votes", "estimate"):
        assert words in before
    assert after.count("reputation") == 3 and "24/24" in after and "48/48" in after
    for place in ("iter_03/adapters", "iter_03/standing.json", "iter_03/preferences.jsonl"):
        assert str(folder / "state" / place) in after
    assert "\x1b" not in said, "no escape sequences in a log"


def test_the_same_command_again_does_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = committed(folder / "state")
    done = typed("launch", "--recipe", folder / "recipe.yaml", "--state", folder / "state")
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert committed(folder / "state") == before


def test_fewer_iterations_than_there_are_do_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    done = typed("launch", "--state", folder / "state", "--iters", 2)
    assert done.returncode == 0 and "All 3 iterations" in done.stdout
    assert typed("launch", "--state", folder / "state", "--iters", 3).returncode == 0


def test_a_dry_run_on_a_run_checks_it_and_changes_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*")}
    done = typed("launch", "--state", folder / "state", "--iters", 5, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 to 5" in done.stdout and "Dry run" in done.stdout
    refused = typed("launch", "--state", folder / "state", "--set", "seed=3", "--dry-run")
    assert "seed: 0, now 3" in sentence(refused)
    assert {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*")} == before


def test_more_iterations_a_branch_and_going_back(tmp_path: Path) -> None:
    state, branch = tmp_path / "state", tmp_path / "branch"
    assert typed("launch", "--recipe", write_recipe(tmp_path), "--state", state, "--iters", 1).returncode == 0
    assert set(manifests(state)) == {"iter_00", "iter_01"}
    assert typed("launch", "--state", state, "--iters", 3).returncode == 0
    whole = manifests(state)
    assert set(whole) == {"iter_00", "iter_01", "iter_02", "iter_03"}

    other = ("--resume", state / "iter_01", "--fork", branch, "--set", "match.alpha=1", "--iters", 2)
    done = typed("launch", *other)
    assert done.returncode == 0, done.stderr
    assert (
        manifests(branch)["iter_01"] == whole["iter_01"] and manifests(branch)["iter_02"] != whole["iter_02"]
    )
    assert manifests(state) == whole

    done = typed("launch", "--resume", state / "iter_01")
    assert done.returncode == 0, done.stderr
    assert manifests(state) == whole
    [aside] = (state / "superseded").iterdir()
    assert set(manifests(aside)) == {"iter_02", "iter_03"}


def test_a_branch_by_another_preset_plays_by_all_of_its_rules(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    state, branch = tmp_path / "state", tmp_path / "branch"
    assert typed("launch", "--recipe", recipe, "--state", state, "--iters", 1).returncode == 0
    arguments = ("--resume", state / "iter_01", "--fork", branch, "--set", "reputation.preset=authors")
    assert "name the recipe file again with --recipe" in sentence(typed("launch", *arguments))
    assert typed("launch", *arguments, "--recipe", recipe, "--iters", 2).returncode == 0
    assert Run.open(StateDir(branch)).recipe.reputation.update == "sequential"


def test_resume_and_state_must_mean_the_same_run(tmp_path: Path) -> None:
    run = begin(tmp_path)
    done = typed("launch", "--resume", run.state.root / "iter_00", "--state", tmp_path / "other")
    assert "leave --state out" in sentence(done)
    assert not (tmp_path / "other").exists()


def test_a_state_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "file").write_text("x")
    said = sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "file" / "state"))
    assert str(tmp_path / "file") in said


def interrupted(monkeypatch: pytest.MonkeyPatch, at: str, asked: LaunchRequest) -> str:
    """What is suggested after Ctrl-C at `at`, a function that a launch calls."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(at, stop)
        with pytest.raises(KeyboardInterrupt):
            launch(asked, Screen())
    return command_to_continue(asked)


DRIVING = "sparta.cluster.driver.Driver.iterate"
CHECKING = "sparta.commands.launch_request._require_startable"


def test_the_command_to_go_on_names_the_run_once_it_is_as_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, state = str(write_recipe(tmp_path)), tmp_path / "state"
    asked = LaunchRequest(recipe=recipe, state=state, settings=("match.k=3", "seed=1"), iterations=4)
    again = f"python jobs/launch.py --iters 4 --recipe {recipe} --state {state} --set match.k=3 --set seed=1"
    assert interrupted(monkeypatch, CHECKING, asked) == again
    assert interrupted(monkeypatch, DRIVING, asked) == f"python jobs/launch.py --state {state}"
    # The run is there, and does not know of the fifth iteration yet.
    more = LaunchRequest(state=state, iterations=5)
    assert interrupted(monkeypatch, CHECKING, more) == f"python jobs/launch.py --iters 5 --state {state}"
    assert Run.open(StateDir(state)).recipe.iterations == 4
    assert interrupted(monkeypatch, DRIVING, more) == f"python jobs/launch.py --state {state}"
    assert Run.open(StateDir(state)).recipe.iterations == 5


def test_the_command_to_go_on_goes_back_or_branches_where_that_was_not_done_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    zero, state, branch = run.iteration(0).root, run.state.root, tmp_path / "the branch"
    back = LaunchRequest(resume=zero)
    assert interrupted(monkeypatch, CHECKING, back) == f"python jobs/launch.py --resume {zero}"
    assert interrupted(monkeypatch, DRIVING, back) == f"python jobs/launch.py --state {state}"
    assert run.state.committed() == [0]
    fork = LaunchRequest(resume=zero, fork=branch, settings=("dpo.beta=0.2",))
    assert interrupted(monkeypatch, CHECKING, fork) == (
        f"python jobs/launch.py --resume {zero} --fork '{branch}' --set dpo.beta=0.2"
    )
    assert interrupted(monkeypatch, DRIVING, fork) == f"python jobs/launch.py --state '{branch}'"


def test_the_command_to_go_on_does_what_was_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begin(tmp_path).state.root
    looking = LaunchRequest(state=state, dry_run=True)
    assert interrupted(monkeypatch, CHECKING, looking).endswith(f"--state {state} --dry-run")
    ending = LaunchRequest(state=state, cancel=True)
    assert interrupted(monkeypatch, "sparta.commands.launch.cancel_all", ending).endswith(
        f"--state {state} --cancel"
    )
    leaving = LaunchRequest(state=state, detach=True)
    assert interrupted(monkeypatch, CHECKING, leaving).endswith(f"--state {state} --detach")


def test_paths_of_a_person_in_another_folder_are_theirs(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    done = typed("launch", "--recipe", "recipe.yaml", "--state", "here", "--iters", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert typed("status", "here", cwd=tmp_path).returncode == 0
    write_adapter(tmp_path / "adapters" / "late", 9)
    assert typed("launch", "--state", tmp_path / "here", cwd=ROOT).returncode == 0


def test_a_run_below_the_default_state_does_not_stand_in_its_way(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    for state in (tmp_path / "state" / "demo", tmp_path / "state"):
        done = typed("launch", "--recipe", recipe, "--state", state, "--iters", 1)
        assert done.returncode == 0, done.stderr
    (tmp_path / "other" / "notes").mkdir(parents=True)
    assert "is not empty" in sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "other"))


def test_a_dry_run_of_going_back_or_branching_checks_that_and_touches_nothing(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*")}
    iteration = folder / "state" / "iter_01"
    back = typed("launch", "--resume", iteration, "--iters", 4, "--dry-run")
    assert back.returncode == 0 and "2 to 4" in back.stdout, back.stderr
    branch = ("--resume", iteration, "--fork", tmp_path / "branch", "--dry-run")
    assert "2 to 3" in typed("launch", *branch).stdout
    assert typed("launch", *branch, "--set", "dpo.beta=0.2").returncode == 0
    assert "dpo.beta: 0.1, now 0.2" in sentence(
        typed("launch", "--resume", iteration, "--set", "dpo.beta=0.2", "--dry-run")
    )
    (tmp_path / "state" / "iter_07").mkdir(parents=True)
    write_recipe(tmp_path)
    assert (
        typed(
            "launch", "--recipe", tmp_path / "recipe.yaml", "--state", tmp_path / "one", "--iters", 1
        ).returncode
        == 0
    )
    (tmp_path / "one" / "iter_07").mkdir()
    assert "is not committed" in sentence(
        typed("launch", "--resume", tmp_path / "one" / "iter_07", "--dry-run")
    )
    assert not (tmp_path / "branch").exists()
    assert {path: path.stat().st_mtime_ns for path in (folder / "state").rglob("*")} == before


def test_a_fork_and_a_state_are_not_given_together(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = finished
    both = ("--resume", folder / "state" / "iter_01", "--fork", tmp_path / "new", "--state", folder / "state")
    assert "leave --state out" in sentence(typed("launch", *both))


def test_fewer_iterations_than_there_are_leave_the_plan_of_the_run_alone(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    typed("launch", "--state", folder / "state", "--iters", 1)
    assert "3 of 3 iterations" in typed("status", folder / "state").stdout


def test_what_nobody_expected_is_a_failure_for_status_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr("sparta.cluster.driver.Driver.iterate", broken)
    with pytest.raises(RuntimeError):
        launch(LaunchRequest(recipe=str(write_recipe(tmp_path)), state=tmp_path / "state"), Screen())
    seen = typed("status", tmp_path / "state")
    assert seen.returncode == 1 and "RuntimeError: CUDA error: an illegal memory access" in seen.stdout


def test_a_task_to_score_on_that_nobody_knows_is_refused_at_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, evaluation={"tasks": ["toyy"]})
    assert "did you mean toy?" in sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "state"))
    assert not (tmp_path / "state" / "run.json").exists()


def test_a_recipe_that_runs_foreign_code_is_shown_as_such(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    done = typed(
        "launch",
        "--recipe",
        recipe,
        "--set",
        "pool.trust_remote_code=true",
        "--dry-run",
        "--state",
        tmp_path / "s",
    )
    assert "pool.trust_remote_code" in done.stdout


def test_the_plan_says_that_frozen_reputations_leave_nobody_to_weight_down(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    arguments = ("--recipe", recipe, "--state", tmp_path / "state", "--dry-run")
    still = typed("launch", *arguments, "--set", "reputation.frozen=true")
    assert "no judge is down-weighted (C.1)" in still.stdout
    assert "C.1" not in typed("launch", *arguments).stdout
