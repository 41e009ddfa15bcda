"""Status on the real SLURM: what is queued and why, what runs where, why a detached launch ended, and the message when SLURM does not answer."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.scripted_run import Launched, typed, wait_until, write_recipe
from support.slurm_runs import HeldBack, ended, gone, queue, responses, variant

from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.phases.generate import Generate
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")

SLOWLY = {"kind": "scripted", "scripted": {"delay": 0.3}}
GENERATE = "iter_01-generate-a0"


def status(state: StateDir) -> dict[str, Any]:
    """What the command says, for programs; with its exit status."""
    done = typed("status", state.root, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode and not done.stderr, done.stderr
    return found


def phase(found: dict[str, Any], t: int, name: str) -> dict[str, Any]:
    [iteration] = [entry for entry in found["iterations"] if entry["t"] == t]
    [entry] = [entry for entry in iteration["phases"] if entry["name"] == name]
    return dict(entry)


def records(state: StateDir) -> list[TaskRecord]:
    """Of the first attempt at generate of iteration 1."""
    attempts = AttemptDir(Run.open(state), Generate(), 1)
    return [record for attempt in attempts.all()[:1] for record in attempts.records(attempt)]


def running_task(state: StateDir) -> TaskRecord:
    """The third task of generate, as soon as all have begun."""
    wait_until(lambda: len(records(state)) == 4)
    return records(state)[2]


def detached(folder: Path) -> tuple[StateDir, HeldBack]:
    """A chain of four tasks to a phase, the first ones held back."""
    recipe = write_recipe(folder, iterations=2, combats=24, cluster={"tasks": 4})
    state, held = StateDir(folder / "state"), HeldBack(folder, GENERATE)
    asked = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster", "--detach")
    done = typed("launch", *asked, **held.environment)
    assert done.returncode == 0, done.stderr
    return state, held


def test_tasks_wait_run_and_are_done_in_front_of_whoever_looks(tmp_path: Path, launched: Launched) -> None:
    everything = ["--exclusive", "--nodes=4", "--partition=gpu", "--output=/dev/null", "--wrap", "sleep 900"]
    submitted = subprocess.run(
        ["sbatch", "--parsable", *everything], capture_output=True, text=True, check=True
    )
    blocking = submitted.stdout.strip()
    recipe = write_recipe(tmp_path, iterations=1, combats=16, engine=SLOWLY, cluster={"tasks": 16})
    state = StateDir(tmp_path / "state")
    profile = variant(tmp_path / "four.yaml", at_once=4)
    held = HeldBack(tmp_path, GENERATE)
    driver = launched("--recipe", recipe, "--state", state.root, "--profile", profile, **held.environment)
    wait_until(
        lambda: (
            (state.jobs / "iter_01" / "generate").is_dir()
            and "Resources" in phase(status(state), 1, "generate")["waiting"]
        )
    )
    found = status(state)
    assert (found["state"], phase(found, 1, "generate")["queued"]) == ("running", 16)
    assert "(Resources)" in typed("status", state.root).stdout

    subprocess.run(["scancel", blocking], check=True)
    wait_until(lambda: responses(state))
    found = status(state)
    generate = phase(found, 1, "generate")
    assert 1 <= generate["running"] <= 4 and generate["queued"] and not generate["failed"]
    assert generate["nodes"] and set(generate["nodes"]) <= {f"node{number}" for number in range(1, 5)}
    assert found["gpu_seconds"] > 0 and "GPU time: " in typed("status", state.root).stdout

    held.let_go(GENERATE)
    ended(driver)
    found = status(state)
    assert (found["state"], found["silence"], phase(found, 1, "judge")["running"]) == ("done", None, 0)
    assert found["gpu_seconds"] > 0 and 0 <= found["gpu_idle"] < 1
    stats = json.loads(state.iteration(1).stats.read_text())
    assert stats["gpu_seconds"] == pytest.approx(found["gpu_seconds"])
    assert stats["phases"]["judge"]["gpu_seconds"] > 0 and 0 <= stats["phases"]["judge"]["gpu_idle"] < 1


def test_a_detached_launch_runs_without_a_driver_and_later_phases_are_queued(tmp_path: Path) -> None:
    state, _ = detached(tmp_path)
    wait_until(lambda: responses(state) >= 2)
    found = status(state)
    assert (found["state"], found["exit_code"], found["driver"]) == ("running", 3, None)
    assert "up to iteration 2" in found["detached"]
    assert phase(found, 1, "judge")["queued"] == phase(found, 2, "generate")["queued"] == 4
    assert phase(found, 1, "merge")["queued"] == 1 and not phase(found, 1, "judge")["waiting"]
    people = typed("status", state.root).stdout
    assert "running without a driver" in people and "queued after it: iteration 2" in people
    assert max(len(line) for line in people.splitlines() if "─" in line) <= 110


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_chain_that_lost_a_task_says_which_and_where(how: str, tmp_path: Path) -> None:
    state, held = detached(tmp_path)
    run, victim = Run.open(state), running_task(state)
    if how == "cancelled":
        # It does not heed SIGTERM: SLURM kills it in its work.
        subprocess.run(["scancel", str(victim.job)], check=True)
        wait_until(lambda: victim.job not in queue(run, "%i"))
    else:
        os.kill(victim.process.pid, signal.SIGKILL)
    held.let_go(GENERATE)
    wait_until(lambda: gone(run))
    found = status(state)
    assert (found["state"], found["exit_code"], found["failure"]) == ("failed", 1, None)
    [ended] = found["ended"]
    assert (ended["phase"], ended["t"], ended["shard"]) == ("generate", 1, 2)
    assert (ended["node"], ended["job"]) == (victim.node, victim.job)
    assert "attempt 0, shard 2" in found["log"]
    assert phase(found, 1, "generate")["failed"] == phase(found, 1, "generate")["lost"] == 1
    people = typed("status", state.root)
    assert people.returncode == 1 and f"shard 2 on {victim.node} (job {victim.job}): " in people.stdout


def test_a_chain_that_ends_since_a_task_was_cancelled_in_its_last_seconds_says_so(tmp_path: Path) -> None:
    state, held = detached(tmp_path)
    victim = running_task(state)
    subprocess.run(["scancel", str(victim.job)], check=True)
    held.let_go(GENERATE)
    wait_until(lambda: gone(Run.open(state)))
    found = status(state)
    assert found["state"] == "failed" and phase(found, 1, "generate")["done"] == 48
    [ended] = found["ended"]
    assert (ended["phase"], ended["shard"], ended["job"]) == ("generate", 2, victim.job)
    assert "its work done" in ended["why"] and "cancelled" in (ended["why"] + found["log"]).lower()


def test_a_silent_controller_is_named_and_the_files_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = detached(tmp_path)
    wait_until(lambda: responses(state) >= 2)
    nobody = tmp_path / "slurm.conf"
    lines = Path(os.environ["SLURM_CONF"]).read_text().splitlines()
    nobody.write_text(
        "\n".join("SlurmctldPort=9" if line.startswith("SlurmctldPort=") else line for line in lines)
    )
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(nobody))
        found = status(state)
        people = typed("status", state.root)
    assert found["silence"] and found["state"] == "running"
    # By the files: whichever phase it has come to, the ones behind it are queued.
    assert phase(found, 1, "commit")["queued"] == 1 and phase(found, 2, "train")["queued"] == 4
    assert people.returncode == 3 and "SLURM did not answer" in people.stdout
