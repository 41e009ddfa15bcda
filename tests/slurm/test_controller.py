"""The controller itself dies while arrays run, and drivers die between the parts of an array that is too large for one."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, Launched, wait_until
from support.slurm_runs import (
    NOTED,
    HeldBack,
    assert_undisturbed,
    at_work,
    ended,
    gone,
    path_with,
    responses,
    scene,
)

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.job_ids import jobs_of
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_a_controller_that_is_killed_and_started_again_under_running_arrays_costs_nothing(
    tmp_path: Path, launched: Launched, devcluster: Path
) -> None:
    """Their tasks end while it is gone, and the driver submits the next phase to nobody."""
    refused = tmp_path / "refused"
    path = path_with(tmp_path / "bin", "sbatch", f'"$real" "$@" || {{ echo >>{refused}; exit 1; }}')
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    driver = launched(*asked, PATH=path, **held.environment)
    wait_until(lambda: at_work(state, Generate(), tasks=2, least=3))
    cluster, at_work_since = Path(os.environ["SPARTA_DEVCLUSTER"]), time.time()
    # It saves every few seconds which jobs run; what it has not saved, SLURM itself loses, and gives the job's number to another one.
    wait_until(lambda: (cluster / "state" / "job_state").stat().st_mtime > at_work_since)
    os.kill(int((cluster / "run" / "slurmctld.pid").read_text()), signal.SIGKILL)
    assert subprocess.run(["squeue"], capture_output=True, timeout=DEADLINE).returncode, "it still answers"
    held.let_go("iter_01-generate-a0")
    wait_until(lambda: responses(state) == 12)
    wait_until(refused.exists)
    assert driver.poll() is None
    subprocess.run(["bash", devcluster / "up.sh"], check=True, capture_output=True, timeout=DEADLINE)
    assert "items are missing" not in ended(driver)
    run = Run.open(state)
    for phase in (Generate(), Judge()):
        assert len(AttemptDir(run, phase, 1).all()) == 1
    assert_undisturbed(run, recipe, 1)


KILLS = """
case $name in
*-generate-a0.1) kill -9 $PPID; exit 1 ;;
*-judge-a0.1) said=$("$real" "$@"); kill -9 $PPID; exit 1 ;;
esac
exec "$real" "$@"
"""
"""An sbatch under which the driver dies when half of an array is queued: before the other half is, and right after it."""


def test_a_driver_that_dies_when_half_of_an_array_is_submitted_loses_and_doubles_nothing(
    tmp_path: Path, launched: Launched
) -> None:
    small = 'if [ "$1 $2" = "show config" ]; then "$real" "$@" | sed "s/^MaxArraySize .*/MaxArraySize = 2/"; else exec "$real" "$@"; fi'
    path_with(tmp_path / "bin", "scontrol", small)
    path = path_with(tmp_path / "bin", "sbatch", NOTED + KILLS)
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 3})
    for phase in (Generate(), Judge()):
        driver = launched(*asked, PATH=path)
        assert driver.wait(timeout=DEADLINE) == -signal.SIGKILL
        run = Run.open(state)
        jobs = jobs_of(AttemptDir(run, phase, 1), 0)
        assert jobs is not None and [part.job is None for part in jobs.parts] == [False, True]
    ended(launched(*asked, PATH=path))
    wait_until(lambda: gone(run))
    assert_undisturbed(run, recipe, 1)
