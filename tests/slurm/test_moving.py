"""Runs that move: from this machine to SLURM and back, from many tasks to few, from a dead driver to the next one; and --cancel."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import DEADLINE, Launched, manifests, sentence, typed, wait_until, write_recipe
from support.slurm_runs import assert_undisturbed, done_twice, gone, responses, scene, undisturbed

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.detached import live_jobs
from sparta.cluster.slurm.job_ids import jobs_of, note_jobs
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")

SLOWLY = {"kind": "scripted", "scripted": {"delay": 0.3}}


def test_a_local_run_is_resumed_on_slurm_and_a_slurm_run_where_there_is_none(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, combats=6, cluster={"kind": "local", "tasks": 2})
    expected = undisturbed(tmp_path, recipe, 3)
    state = tmp_path / "state"
    begun = typed("launch", "--recipe", recipe, "--state", state)
    assert begun.returncode == 0, begun.stderr
    assert manifests(state) == expected

    on_slurm = typed("launch", "--resume", state / "iter_02", "--profile", "devcluster")
    assert on_slurm.returncode == 0, on_slurm.stderr
    assert manifests(state) == expected
    run = Run.open(StateDir(state))
    assert {attempt.cluster for attempt in AttemptDir(run, Generate(), 3).all()} == {"slurm"}

    elsewhere = tmp_path / "no SLURM"
    elsewhere.mkdir()
    back = launched("--resume", state / "iter_02", "--cluster", "local", PATH=str(elsewhere))
    _, err = back.communicate(timeout=DEADLINE)
    assert back.returncode == 0, err
    assert manifests(state) == expected
    assert {attempt.cluster for attempt in AttemptDir(run, Generate(), 3).all()} == {"local"}
    assert len(list((state / "superseded").glob("*/iter_03/MANIFEST.json"))) == 2
    assert not done_twice(run, 3)


def test_three_tasks_finish_what_sixteen_began(tmp_path: Path, launched: Launched) -> None:
    recipe, state, asked = scene(tmp_path, combats=14, iterations=1, engine=SLOWLY)
    driver = launched(*asked, "--set", "cluster.tasks=16")
    wait_until(lambda: responses(state) >= 3)
    driver.kill()
    driver.wait()
    again = typed("launch", *asked, "--set", "cluster.tasks=3", "--set", "engine.scripted.delay=0")
    assert again.returncode == 0, again.stderr
    assert "tasks of an earlier launch are still running, waiting for them" in again.stdout
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    [attempt] = attempts.all()
    assert attempt.shards == 16
    assert {record.shard for record in attempts.records(attempt)} == set(range(16))
    [judging] = AttemptDir(run, Judge(), 1).all()
    assert judging.shards == 3
    assert_undisturbed(run, recipe, 1)


def test_a_larger_array_than_slurm_allows_is_split_and_both_parts_are_found_again(
    tmp_path: Path, launched: Launched
) -> None:
    """MaxArraySize is 21 here: what 28 tasks may do becomes two arrays. The driver is killed among them."""
    recipe, state, asked = scene(tmp_path, combats=14, iterations=1, engine=SLOWLY)
    driver = launched(*asked, "--set", "cluster.tasks=28")
    wait_until(lambda: responses(state) >= 3)
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, check=True
    )
    driver.kill()
    driver.wait()
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    jobs = jobs_of(attempts, 0)
    assert jobs is not None
    first, second = jobs.parts
    assert first.first == 0 and second.first == first.count
    assert max(first.count, second.count) <= 21 < first.count + second.count
    for job in jobs.ids:
        # The four that may run together are shared out.
        assert f"ArrayJobId={job} " in shown.stdout and "ArrayTaskThrottle=2" in shown.stdout

    again = typed("launch", *asked, "--set", "cluster.tasks=2", "--set", "engine.scripted.delay=0")
    assert again.returncode == 0, again.stderr
    [attempt] = attempts.all()
    assert {record.shard for record in attempts.records(attempt)} == set(range(attempt.shards))
    assert_undisturbed(run, recipe, 1)


def test_cancel_ends_this_runs_jobs_alone_and_the_same_command_goes_on(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, combats=24, iterations=1, cluster={"tasks": 2})
    slowly = ("--set", "engine.scripted.delay=2")
    asked, other = (
        ("--recipe", recipe, "--state", tmp_path / name, "--profile", "devcluster")
        for name in ("state", "other")
    )
    state = StateDir(tmp_path / "state")
    foreign = subprocess.run(
        ["sbatch", "--parsable", "--partition=cpu", "--output=/dev/null", "--wrap=sleep 900"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    detached = typed("launch", *other, *slowly, "--detach")
    assert detached.returncode == 0, detached.stderr
    driver = launched(*asked, *slowly)
    wait_until(lambda: responses(state) >= 1)
    run, neighbour = Run.open(state), Run.open(StateDir(tmp_path / "other"))

    # A living driver is named, and nothing ended.
    said = sentence(typed("launch", "--state", state.root, "--cancel"))
    assert f"{state.root} is being driven by process {driver.pid}" in said
    assert len(live_jobs(run)) == 2

    driver.kill()
    driver.wait()
    jobs_before = {task.job for task in live_jobs(run)}
    assert len(jobs_before) == 2
    ended = typed("launch", "--state", state.root, "--cancel")
    assert ended.returncode == 0, ended.stderr
    assert f"Ended 2 tasks of {state.root}" in ended.stdout
    wait_until(lambda: gone(run))
    assert live_jobs(neighbour)
    assert (
        f"{state.root} has no task queued or running."
        in typed("launch", "--state", state.root, "--cancel").stdout
    )

    # So is a detached chain; the command that comes at once is not confused by jobs that are still ending.
    chained = typed("launch", "--state", tmp_path / "other", "--cancel")
    assert chained.returncode == 0 and "Ended " in chained.stdout, chained.stderr
    once_more = typed("launch", *other, "--detach")
    assert once_more.returncode == 0, once_more.stderr
    assert "this run continues without a driver" in once_more.stdout
    again = typed("launch", *asked)
    assert again.returncode == 0, again.stderr
    wait_until(lambda: 1 in neighbour.state.committed() and gone(neighbour))
    assert subprocess.run(
        ["squeue", "--noheader", f"--jobs={foreign}", "--format=%T"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split() == ["RUNNING"]
    expected = undisturbed(tmp_path, recipe, 1)
    assert manifests(state.root) == manifests(neighbour.state.root) == expected
    assert not done_twice(run, 1) and not done_twice(neighbour, 1)


def test_cancel_in_a_copy_of_a_state_leaves_the_jobs_of_the_original(
    tmp_path: Path, launched: Launched
) -> None:
    """The copy has the run's id, and notes of the same jobs. One of them, besides, whose id the driver never came to note."""
    recipe = write_recipe(tmp_path, combats=24, iterations=1, cluster={"tasks": 2})
    state, copy = StateDir(tmp_path / "state"), StateDir(tmp_path / "copy")
    asked = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster")
    driver = launched(*asked, "--set", "engine.scripted.delay=2")
    wait_until(lambda: responses(state) >= 1)
    driver.kill()
    driver.wait()
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    jobs = jobs_of(attempts, 0)
    assert jobs is not None
    unnoted = [msgspec.structs.replace(part, job=None) for part in jobs.parts]
    note_jobs([(attempts, 0)], msgspec.structs.replace(jobs, parts=unnoted))
    subprocess.run(["cp", "-r", state.root, copy.root], check=True)

    nothing = typed("launch", "--state", copy.root, "--cancel")
    assert nothing.returncode == 0, nothing.stderr
    assert f"{copy.root} has no task queued or running." in nothing.stdout
    assert len(live_jobs(run)) == 2
    ended = typed("launch", "--state", state.root, "--cancel")
    assert ended.returncode == 0, ended.stderr
    assert f"Ended 2 tasks of {state.root}" in ended.stdout
    wait_until(lambda: gone(run))


def test_cancel_ends_local_tasks_of_a_killed_driver_too(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(
        tmp_path, combats=24, iterations=1, cluster={"kind": "local", "tasks": 2, "at_once": 2}
    )
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", recipe, "--state", state.root)
    driver = launched(*asked, "--set", "engine.scripted.delay=2")
    wait_until(lambda: responses(state) >= 1)
    driver.kill()
    driver.wait()
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    [attempt] = attempts.all()
    ended = typed("launch", "--state", state.root, "--cancel")
    assert ended.returncode == 0, ended.stderr
    assert "Ended 2 tasks" in ended.stdout
    wait_until(lambda: not any(record.alive for record in attempts.records(attempt)))
    again = typed("launch", *asked, "--set", "engine.scripted.delay=0")
    assert again.returncode == 0, again.stderr
    assert_undisturbed(run, recipe, 1)


def test_jobs_that_slurm_has_forgotten_are_not_waited_for(tmp_path: Path, launched: Launched) -> None:
    """A driver dies, its job is ended, and SLURM forgets it (MinJobAge, 15 s here) before anybody looks."""
    recipe, state, asked = scene(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    driver = launched(*asked, "--set", "engine.scripted.delay=5")
    wait_until(state.iteration(1).responses.exists)
    driver.kill()
    driver.wait()
    run = Run.open(state)
    tasks = live_jobs(run)
    subprocess.run(["scancel", *(task.job for task in tasks)], check=True)
    job = tasks[0].job.partition("_")[0]

    def forgotten() -> bool:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
        return "Invalid job id" in shown.stderr

    wait_until(forgotten)
    again = typed("launch", *asked, "--set", "engine.scripted.delay=0")
    assert again.returncode == 0, again.stderr
    assert_undisturbed(run, recipe, 1)
