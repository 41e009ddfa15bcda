"""Status: what a state says of its run, while it runs, after a crash, and at the end."""

import json
import os
import signal
from pathlib import Path

import pytest
from rehearsal import Launched, advance, begin, typed, wait_until, write_recipe

from sparta.cluster.estimate import seconds_an_iteration
from sparta.cluster.failure import note_failure
from sparta.cluster.status import PhaseStatus, Status, status_of
from sparta.errors import SpartaError
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import LineCounter


def phase(status: Status, t: int, name: str) -> PhaseStatus:
    return next(
        entry
        for iteration in status.iterations
        if iteration.t == t
        for entry in iteration.phases
        if entry.name == name
    )


def test_a_run_that_has_only_begun_is_stopped(tmp_path: Path) -> None:
    status = status_of(begin(tmp_path))
    assert (status.state, status.exit_code, status.iterations, status.planned) == ("stopped", 3, [], 3)
    assert (status.standing_after, status.driver, status.failure) == (0, None, None)


def test_a_finished_run_is_done(tmp_path: Path) -> None:
    run = begin(tmp_path, iterations=1)
    advance(run, 1)
    status = status_of(run)
    assert (status.state, status.exit_code, status.seconds_left) == ("done", 0, None)
    assert [phase(status, 1, name).done for name in ("generate", "judge", "train")] == [24, 48, 4]
    assert status.standing_after == 1


def test_a_run_that_stopped_in_the_middle_says_how_far_it_came(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    [path] = run.iteration(1).responses.iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    status = status_of(run)
    assert (status.state, status.exit_code) == ("stopped", 3)
    generate = phase(status, 1, "generate")
    assert (generate.done, generate.total, generate.running) == (7, 24, 0)
    assert (phase(status, 1, "judge").done, phase(status, 1, "judge").total) == (0, 48)
    assert phase(status, 1, "commit").done == 0


def test_an_iteration_that_has_no_plan_yet_has_no_totals(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.iteration(1).root.mkdir()
    assert phase(status_of(run), 1, "generate").total is None


def test_a_launch_that_ended_with_an_error_is_failed_until_one_goes_on(tmp_path: Path) -> None:
    run = begin(tmp_path)
    note_failure(run.state, "the disk is full")
    status = status_of(run)
    assert (status.state, status.exit_code) == ("failed", 1)
    assert status.failure is not None and status.failure.said == "the disk is full"
    assert typed("launch", "--state", run.state.root).returncode == 0
    assert status_of(Run.open(run.state)).state == "done"


def test_a_state_without_a_committed_iteration_is_named(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.iteration(0).manifest.unlink()
    with pytest.raises(SpartaError, match="no committed iteration"):
        status_of(run)


def test_an_iteration_that_was_never_measured_does_not_count_as_instant(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    assert seconds_an_iteration(run) is None


def test_looking_writes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="judge")
    before = {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")}
    status_of(run)
    assert {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")} == before


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_the_command_sees_a_run_start_crash_and_end(cluster: str, tmp_path: Path, launched: Launched) -> None:
    engine = {"kind": "scripted", "scripted": {"delay": 0.05}}
    recipe = write_recipe(tmp_path, iterations=1, engine=engine, combats=20)
    arguments = ("--recipe", recipe, "--state", tmp_path / "state", "--cluster", cluster)
    state = StateDir(tmp_path / "state")
    driver = launched(*arguments)
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= 4)
    seen = typed("status", state.root, "--json")
    assert seen.returncode == 3, seen.stderr
    status = json.loads(seen.stdout)
    assert (status["state"], status["exit_code"]) == ("running", 3)
    assert str(driver.pid) in status["driver"]
    assert 4 <= phase_of(status, "generate")["done"] < 40 and phase_of(status, "generate")["running"] >= 1
    people = typed("status", state.root)
    assert people.returncode == 3 and "running" in people.stdout and str(driver.pid) in people.stdout

    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    seen = typed("status", state.root, "--json")
    status = json.loads(seen.stdout)
    assert (seen.returncode, status["state"], status["driver"]) == (3, "stopped", None)
    assert phase_of(status, "generate")["running"] == 0
    people = typed("status", state.root)
    assert f"continue with: python jobs/launch.py --state {state.root}" in people.stdout

    assert typed("launch", "--state", state.root, "--set", "engine.scripted.delay=0").returncode == 0
    seen = typed("status", state.root, "--json")
    assert (seen.returncode, json.loads(seen.stdout)["state"]) == (0, "done")


def phase_of(status: dict, name: str) -> dict:
    return next(entry for entry in status["iterations"][0]["phases"] if entry["name"] == name)


def test_the_command_says_that_there_is_no_run(tmp_path: Path) -> None:
    done = typed("status", tmp_path)
    assert done.returncode == 1 and "holds no run" in done.stderr and "Traceback" not in done.stderr
