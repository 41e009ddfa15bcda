"""A run on SLURM commits what a run on this machine does, wherever its tasks ran."""

from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, Launched, manifests, typed, wait_until, write_recipe
from support.slurm_runs import (
    HeldBack,
    Listener,
    assert_undisturbed,
    at_work,
    done_twice,
    ended,
    gone,
    scene,
    undisturbed,
)

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_three_iterations_commit_what_the_local_executor_does(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, iterations=3, combats=12)
    on_slurm = launched("--recipe", recipe, "--state", tmp_path / "slurm", "--profile", "devcluster")
    local = typed("launch", "--recipe", recipe, "--state", tmp_path / "local", "--cluster", "local")
    assert local.returncode == 0, local.stderr
    _, err = on_slurm.communicate(timeout=DEADLINE)
    assert on_slurm.returncode == 0, err
    assert manifests(tmp_path / "slurm") == manifests(tmp_path / "local")
    assert len(manifests(tmp_path / "slurm")) == 4


def test_sixteen_tasks_spread_over_four_nodes_each_with_a_gpu_of_its_own(
    tmp_path: Path, launched: Launched
) -> None:
    profile = tmp_path / "wide.yaml"
    text = (Path(__file__).parents[2] / "slurm" / "profiles" / "devcluster.yaml").read_text()
    profile.write_text(text.replace("at_once: 4", "at_once: 16"))
    recipe = write_recipe(tmp_path, iterations=1, combats=64)
    state = StateDir(tmp_path / "state")
    held = HeldBack(tmp_path, "iter_01-generate-a0", "iter_01-judge-a0")
    driver = launched("--recipe", recipe, "--state", state.root, "--profile", profile, **held.environment)
    wait_until(lambda: at_work(state, Generate(), tasks=16))
    held.let_go("iter_01-generate-a0")
    wait_until(lambda: at_work(state, Judge(), tasks=16))
    held.let_go("iter_01-judge-a0")
    ended(driver)
    run = Run.open(state)
    for phase in (Generate(), Judge()):
        attempts = AttemptDir(run, phase, 1)
        [attempt] = attempts.all()
        records = attempts.records(attempt)
        assert len(records) == 16
        places = {(record.node, record.gpus) for record in records}
        assert places == {(f"node{node}", str(gpu)) for node in range(1, 5) for gpu in range(4)}, phase.name


def test_combats_that_are_judged_in_one_array_come_to_the_same(tmp_path: Path, launched: Launched) -> None:
    """A driver dies amid them, and its successor, which wants separate phases, waits for their tasks first."""
    recipe, state, asked = scene(tmp_path, iterations=2, combats=12)
    held = HeldBack(tmp_path, "iter_01-combat-a0")
    driver = launched(*asked, "--set", "cluster.fused=true", **held.environment)
    wait_until(lambda: at_work(state, CombatAndJudge(), tasks=2))
    driver.kill()
    driver.communicate(timeout=DEADLINE)
    successor = launched(*asked)
    heard = Listener(successor)
    heard.hears("combat+judge: tasks of an earlier launch are still running, waiting for them")
    held.let_go("iter_01-combat-a0")
    _, err = heard.end()
    assert successor.returncode == 0, err
    run = Run.open(state)
    assert not AttemptDir(run, Generate(), 1).all() and AttemptDir(run, Generate(), 2).all()
    assert_undisturbed(run, recipe, 2)


def test_a_detached_chain_of_them_comes_to_the_same(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, iterations=2, combats=6, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    fused = ("--profile", "devcluster", "--set", "cluster.fused=true", "--detach")
    done = typed("launch", "--recipe", recipe, "--state", state.root, *fused)
    assert done.returncode == 0, done.stderr
    run = Run.open(state)
    wait_until(lambda: 2 in state.committed() and gone(run))
    assert not done_twice(run, 2)
    assert len(AttemptDir(run, CombatAndJudge(), 2).all()) == 1
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 2)
    told = typed("status", state.root)
    assert told.returncode == 0 and "combat" in told.stdout, told.stdout
