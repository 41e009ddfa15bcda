"""The initial pool made by phases: killed and restarted, shown by status, and required by commands that need it."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from support.expert_recipes import write_school
from support.openings import begin_or_continue, fork, go_back
from support.scripted_run import Launched, advance, manifests, typed, wait_until

from sparta.cluster.account import measure
from sparta.cluster.inline import Inline
from sparta.cluster.slurm.detached import links_from
from sparta.commands.begin import check_state
from sparta.commands.evaluate_request import EvaluateRequest, plan_evaluation
from sparta.commands.launch_tables import show_plan
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases.train_experts import TrainExperts
from sparta.recipes.load import load
from sparta.screen import plain_console
from sparta.status.collect import status_of
from sparta.status.tables import show_status
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import LineCounter
from sparta.store.stats import IterationStats


def begin(folder: Path, **options: object) -> Run:
    return begin_or_continue(StateDir(folder / "state"), load(write_school(folder, **options)))  # type: ignore[arg-type]


def half_taught(folder: Path) -> Run:
    """A run whose first two experts are trained and whose third one's data was changed."""
    run = begin(folder)
    path = folder / "lessons" / "cem.jsonl"
    before = path.read_text()
    path.write_text(before.replace("cem 3?", "cem 4?"))
    with pytest.raises(SpartaError):
        advance(run, 0)
    path.write_text(before)
    return run


def test_a_pool_training_that_is_killed_repeatedly_equals_an_undisturbed_one(
    tmp_path: Path, launched: Launched
) -> None:
    names = tuple(f"expert{number}" for number in range(8))
    recipe = write_school(tmp_path, names=names, rows=400, iterations=1, combats=4)
    state = StateDir(tmp_path / "state")
    counter = LineCounter(state.iteration(0).training)
    seen = 0
    for least in (1, 3, 6):
        driver = launched("--recipe", recipe, "--state", state.root)

        def far(least: int = least, driver: object = driver) -> bool:
            nonlocal seen
            seen += counter.fresh()
            return seen >= least or driver.poll() is not None  # type: ignore[attr-defined]

        wait_until(far)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert typed("launch", "--recipe", recipe, "--state", state.root).returncode == 0
    calm = begin_or_continue(StateDir(tmp_path / "calm"), load(recipe))
    for t in (0, 1):
        advance(calm, t)
    assert manifests(state.root) == manifests(calm.state.root)
    assert len(manifests(state.root)) == 2


def test_a_launch_makes_the_pool_and_continues_with_iterations(tmp_path: Path) -> None:
    done = typed("launch", "--recipe", write_school(tmp_path, iterations=1), "--state", tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert "4 of them trained from data, 24 rows, 4 weight updates" in done.stdout
    assert "training experts 4/4" in done.stdout and "initial pool: experts from data" in done.stdout
    assert StateDir(tmp_path / "state").committed() == [0, 1]


def test_status_shows_a_pool_that_is_being_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half_taught(tmp_path)
    status = status_of(run)
    [zero] = status.iterations
    assert (zero.t, zero.committed) == (0, False)
    assert [(phase.name, phase.done, phase.total) for phase in zero.phases] == [
        ("sft", 2, 4),
        ("found", 0, 1),
    ]
    assert zero.phases[0].failed == 1
    assert status.state == "stopped" and status.standing == {} and status.standing_after is None
    show_status(status, run.state.root)
    said = capsys.readouterr().out
    assert "0 of 3 iterations committed" in said and "2/4, 1 failed" in said and "standing" not in said
    advance(run, 0)
    measure(run, phases_of(run.recipe, 0), 0)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    status = status_of(run)
    assert [entry.t for entry in status.iterations] == [0, 1] and status.standing_after == 1
    show_status(status, run.state.root)
    assert "4/4" in capsys.readouterr().out


def test_a_failed_pool_training_names_the_data_and_status_shows_it(tmp_path: Path) -> None:
    recipe = write_school(tmp_path, cluster={"kind": "local", "at_once": 2})
    begun = begin_or_continue(StateDir(tmp_path / "state"), load(recipe))
    path = tmp_path / "lessons" / "cem.jsonl"
    path.write_text(path.read_text().replace("cem 3?", "cem 4?"))
    done = typed("launch", "--state", begun.state.root)
    assert (
        done.returncode == 1
        and "model cem: " in done.stderr
        and "was changed since the run began" in done.stderr
    )
    told = typed("status", begun.state.root)
    assert told.returncode == 1
    assert "was changed since the run began" in told.stdout and "last lines of its log" in told.stdout


def test_without_a_pool_a_run_cannot_be_scored_rolled_back_or_branched(tmp_path: Path) -> None:
    run = half_taught(tmp_path)
    with pytest.raises(
        SpartaError, match="has no pool to score yet: make it with python jobs/launch.py --state"
    ):
        plan_evaluation(run, EvaluateRequest(tasks="toy"))
    for ask in (
        lambda: go_back(run.state, 0),
        lambda: fork(run.state, 0, StateDir(tmp_path / "branch"), None),
    ):
        with pytest.raises(SpartaError, match="has no pool yet, so there is nothing to resume"):
            ask()
    changed = load(tmp_path / "recipe.yaml", ["seed=5"])
    with pytest.raises(
        SpartaError, match=r"undo the difference, or choose another --state:\n  seed: 0, now 5"
    ):
        begin_or_continue(run.state, changed)


def test_going_back_to_the_pool_and_branching_from_it_keep_what_it_was_made_of(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for t in (0, 1):
        advance(run, t)
    branch = fork(run.state, 0, StateDir(tmp_path / "branch"), None)
    check_state(branch)
    assert branch.sft_data == run.sft_data
    advance(branch, 1)
    go_back(run.state, 0)
    again = begin_or_continue(run.state, None)
    advance(again, 1)
    assert again.iteration(1).manifest.read_bytes() == branch.iteration(1).manifest.read_bytes()


def test_a_deleted_pool_is_retrained_identically_unless_iterations_were_played_with_it(
    tmp_path: Path,
) -> None:
    run = begin(tmp_path)
    advance(run, 0)
    before = run.iteration(0).manifest.read_bytes()
    shutil.rmtree(run.iteration(0).root)
    advance(begin_or_continue(run.state, None), 0)
    assert run.iteration(0).manifest.read_bytes() == before
    advance(run, 1, upto="plan")
    shutil.rmtree(run.iteration(0).root)
    with pytest.raises(
        SpartaError,
        match=f"{run.iteration(0).root}, the run's initial pool, is missing or has no MANIFEST.json",
    ):
        begin_or_continue(run.state, None)


def test_a_detached_launch_begins_with_the_pool(tmp_path: Path) -> None:
    run = begin(tmp_path)
    found = links_from(run, 0, 1, lambda phase: 16)
    assert [str(link) for link in found][:3] == ["sft 0", "found 0 and plan 1", "generate 1"]
    assert found[0].shards == 4, "one task an expert"
    assert [piece.phase for piece, _ in found[1].work.assigns] == ["generate", "judge"]
    advance(run, 0, upto="sft")
    assert [str(link) for link in links_from(run, 0, 0, lambda phase: 16)] == ["found 0"]


def test_each_expert_gets_its_own_task(tmp_path: Path) -> None:
    run = begin(tmp_path, cluster={"kind": "local", "at_once": 3})
    work = TrainExperts().expected(run, 0)
    assert (work.bundles, work.updates, len(work.seconds)) == (4, 4, 4)
    console = plain_console()
    with console.capture() as captured:
        show_plan(console, run, 0, 0, Inline(run))
    assert (
        "4 of them trained from data, 24 rows, 4 weight updates" in captured.get()
        and "each iteration" not in captured.get()
    )


def test_the_cost_of_the_pool_is_measured(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0)
    measure(run, phases_of(run.recipe, 0), 0)
    phases = files.read_json(run.iteration(0).stats, IterationStats).phases
    assert phases["sft"].items == 4 and phases["found"].items == 1
