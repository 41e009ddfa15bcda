"""Drivers on a real cluster that are killed, interrupted or started twice: jobs continue, none is lost, none is submitted twice."""

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, Launched, manifests, sentence, typed, wait_until
from support.slurm_runs import (
    NOTED,
    PHASES,
    HeldBack,
    Listener,
    assert_undisturbed,
    done_twice,
    ended,
    path_with,
    queue,
    responses,
    scene,
    undisturbed,
)

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_a_driver_that_is_killed_or_asked_to_go_leaves_its_jobs_to_the_next(
    tmp_path: Path, launched: Launched
) -> None:
    log, looks = tmp_path / "submitted", tmp_path / "looks"
    path_with(tmp_path / "bin", "sbatch", f'{NOTED}echo "$name" >>{log}\nexec "$real" "$@"')
    path = path_with(tmp_path / "bin", "squeue", f'echo >>{looks}; exec "$real" "$@"')
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})

    held = HeldBack(tmp_path, "iter_01-generate-a0")
    driver = launched(*asked, PATH=path, **held.environment)
    wait_until(lambda: responses(state) >= 1)
    said = sentence(typed("launch", *asked))
    assert f"is being driven by process {driver.pid} on" in said and f"kill {driver.pid}" in said
    driver.kill()
    driver.wait()

    again = launched(*asked, PATH=path)
    heard = Listener(again)
    heard.hears("generate: tasks of an earlier launch are still running, waiting for them")
    # It waits from then on, at the latest from its next look into the queue.
    seen = looks.stat().st_size
    wait_until(lambda: looks.stat().st_size > seen)
    again.send_signal(signal.SIGTERM)
    out, err = heard.end()
    assert again.returncode == 130
    assert "Taking over the lock" in out
    assert "generate: tasks continue without this driver (--cancel ends them)" in out
    assert f"continue with\n  python jobs/launch.py --state {state.root}" in err

    run = Run.open(state)
    assert set(queue(run)) == {"RUNNING"}
    last = launched("--state", state.root, PATH=path)
    heard = Listener(last)
    heard.hears("generate: tasks of an earlier launch are still running, waiting for them")
    held.let_go("iter_01-generate-a0")
    out, err = heard.end()
    assert last.returncode == 0, err + out
    names = log.read_text().split()
    assert [name.partition("iter_01-")[2] for name in names] == [
        "generate-a0",
        "judge-a0",
        "merge-a0",
        "train-a0",
    ]
    assert_undisturbed(run, recipe, 1)


KILLS = """
number=${name##*-a}
case $name in
*-generate-a0) kill -9 $PPID; exit 1 ;;
*-generate-a1) said=$("$real" "$@"); kill -9 $PPID; exit 1 ;;
*-generate-a2) kill -9 $PPID
    until [ -e STATE/jobs/iter_01/generate/a3-00000.json ]; do sleep 0.05; done ;;
esac
exec "$real" "$@"
"""
"""An sbatch under which the driver dies: before it has begun, when it has just ended, and while it takes its time."""


def test_a_driver_killed_around_its_submission_loses_and_doubles_nothing(
    tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, iterations=1, combats=4, cluster={"tasks": 2})
    script = NOTED + KILLS.replace("STATE", str(state.root))
    path = path_with(tmp_path / "bin", "sbatch", script)
    for made in (1, 2, 3):
        driver = launched(*asked, PATH=path)
        assert driver.wait(timeout=DEADLINE) == -signal.SIGKILL
        run = Run.open(state)
        assert len(AttemptDir(run, Generate(), 1).all()) == made
    ended(launched(*asked, PATH=path))
    attempts = AttemptDir(run, Generate(), 1)
    assert [bool(attempts.records(attempt)) for attempt in attempts.all()] == [False, False, False, True]
    assert_undisturbed(run, recipe, 1)


def test_ten_launches_killed_at_random_moments_submit_no_job_twice(
    tmp_path: Path, launched: Launched
) -> None:
    log = tmp_path / "submitted"
    path = path_with(tmp_path / "bin", "sbatch", f'{NOTED}"$real" "$@" && echo "$name" >>{log}')
    slowly = {"kind": "scripted", "scripted": {"delay": 0.2}}
    recipe, state, asked = scene(tmp_path, iterations=2, combats=6, engine=slowly, cluster={"tasks": 2})
    stream, moments = random.Random(3), []
    for _ in range(10):
        driver = launched(*asked, PATH=path)
        seconds = stream.uniform(0.3, 2.5)
        moments.append(f"{seconds:.2f}")
        time.sleep(seconds)
        driver.kill()
        driver.wait()
    ended(launched(*asked, "--set", "engine.scripted.delay=0", PATH=path))
    run = Run.open(state)
    names = Counter(log.read_text().split())
    assert set(names.values()) == {1}, moments
    assert not done_twice(run, 2), moments
    for t in (1, 2):
        for phase in PHASES:
            attempts = AttemptDir(run, phase, t)
            ran = [record for a in attempts.all() for record in attempts.records(a) if record.loads]
            assert sum(record.items for record in ran) <= len(phase.work(run, t)), moments
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 2), moments
