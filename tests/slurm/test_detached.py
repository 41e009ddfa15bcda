"""Detached launches: all jobs of a run at once, without a driver; a failure ends the chain, and the same command repairs it."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.scripted_run import (
    DEADLINE,
    Launched,
    advance,
    begin,
    manifests,
    sentence,
    typed,
    wait_until,
)
from support.slurm_runs import (
    HeldBack,
    Listener,
    assert_undisturbed,
    done_twice,
    gone,
    path_with,
    queue,
    responses,
    scene,
    undisturbed,
)

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.code_snapshot import snapshot
from sparta.cluster.slurm.detached import latest_chain
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, job_name, note_jobs
from sparta.methods.registry import phase_named
from sparta.phases.generate import Generate
from sparta.store.lock import holder
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_a_chain_completes_the_run_with_no_driver_alive(tmp_path: Path) -> None:
    # Some combats turn out to have nothing to judge, long after their votes were dealt out.
    alike = {"kind": "scripted", "scripted": {"equal": 0.3}}
    recipe, state, asked = scene(tmp_path, "--detach", combats=6, cluster={"tasks": 2}, engine=alike)
    held = HeldBack(tmp_path, "iter_02-generate-a0")
    done = typed("launch", *asked, **held.environment)
    assert done.returncode == 0, done.stderr
    assert (
        "this run continues without a driver" in done.stdout
        and f"--state {state.root} --cancel" in done.stdout
    )
    run = Run.open(state)
    assert holder(state) is None
    chain = latest_chain(run)
    assert chain is not None and chain.whole and chain.last == 3

    wait_until(lambda: state.iteration(2).plan.is_file())
    said = sentence(typed("launch", "--resume", state.root / "iter_01"))
    assert "of iteration 2 are still running: cancel them with --cancel" in said
    again = typed("launch", *asked, "--iters", 4)
    assert again.returncode == 0, again.stderr
    assert "in SLURM already, up to iteration 3: nothing was submitted" in again.stdout
    assert "Run the same command again when it is done, for the iterations after it" in again.stdout
    again = typed("launch", *asked, "--iters", 3)
    assert "nothing was submitted" in again.stdout and "Iterations after it" not in again.stdout
    assert latest_chain(run) == chain

    held.let_go("iter_02-generate-a0")
    wait_until(lambda: 3 in state.committed() and gone(run))
    assert holder(state) is None
    assert_undisturbed(run, recipe, 3)
    for t in (1, 2, 3):
        phases = json.loads(run.iteration(t).stats.read_text())["phases"]
        assert {name: phases[name]["items"] for name in ("generate", "judge", "train")} == {
            "generate": 12,
            "judge": 24,
            "train": 4,
        }
        assert all(phases[name]["attempts"] == 1 and phases[name]["seconds"] > 0 for name in phases), phases
    assert sum(json.loads(run.iteration(t).stats.read_text())["votes_saved"] for t in (1, 2, 3)) > 0
    assert "nothing to do" in typed("launch", *asked).stdout


def test_a_launch_waits_for_the_chain_and_finishes_what_it_left(tmp_path: Path, launched: Launched) -> None:
    recipe, state, asked = scene(tmp_path, combats=6, cluster={"tasks": 2})
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    done = typed("launch", *asked, "--iters", 1, "--detach", **held.environment)
    assert done.returncode == 0, done.stderr
    driver = launched(*asked, "--iters", 2)
    heard = Listener(driver)
    heard.hears("waiting for them")
    held.let_go("iter_01-generate-a0")
    out, err = heard.end()
    assert driver.returncode == 0, err
    assert "Done: 2 iterations." in out
    run = Run.open(state)
    assert_undisturbed(run, recipe, 2)
    wait_until(lambda: gone(run))


@pytest.mark.parametrize("first", ["generate", "combat"])
def test_a_chain_of_an_alternative_phase_waits_for_tasks_of_the_first(
    first: str, tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    fused = ("--set", "cluster.fused=true")
    ways = ((), fused) if first == "generate" else (fused, ())
    held = HeldBack(tmp_path, f"iter_01-{first}-a0")
    driver = launched(*asked, *ways[0], **held.environment)
    wait_until(lambda: responses(state) >= 2)
    driver.kill()
    driver.wait()
    run = Run.open(state)
    phase = phase_named(first)
    # Of one of the two tasks nothing is left to wait for, and the other way has something to do.
    attempts = AttemptDir(run, phase, 1)
    wait_until(lambda: attempts.record(0, 1) is not None)
    victim = attempts.record(0, 1)
    assert victim is not None and victim.job is not None
    subprocess.run(["scancel", victim.job], check=True)
    wait_until(lambda: victim.job not in queue(run, "%i"))

    again = launched(*asked, *ways[1], "--detach")
    heard = Listener(again)
    heard.hears(f"{phase.title}: tasks of an earlier launch are still running, waiting for them")
    assert latest_chain(run) is None
    said = sentence(typed("launch", "--resume", state.root / "iter_00"))
    assert "is being driven by" in said
    held.let_go(f"iter_01-{first}-a0")
    out, err = heard.end()
    assert again.returncode == 0, err
    assert "this run continues without a driver" in out
    wait_until(lambda: 1 in state.committed() and gone(run))
    assert not done_twice(run, 1)
    dealt = {name: AttemptDir(run, phase_named(name), 1).numbers for name in ("generate", "judge", "combat")}
    if first == "generate":
        assert dealt == {"generate": {0}, "judge": set(), "combat": {1}}
    else:
        assert dealt == {"generate": {1}, "judge": {1}, "combat": {0}}
    costs = json.loads(run.iteration(1).stats.read_text())["phases"]
    assert costs["generate"]["attempts"] == costs["combat"]["attempts"] == 1
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)


def test_a_failing_shard_ends_the_chain_and_the_same_command_repairs_it(tmp_path: Path) -> None:
    recipe, state, asked = scene(tmp_path, "--detach", combats=6, iterations=2, cluster={"tasks": 2})
    expected = undisturbed(tmp_path, recipe, 2)
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    done = typed("launch", *asked, **held.environment)
    assert done.returncode == 0, done.stderr
    # An adapter of the first pool is damaged after everything was checked: training cannot read it.
    weights = state.root / "iter_00/adapters/model2/adapter_model.safetensors"
    aside = weights.rename(tmp_path / "aside")
    held.let_go("iter_01-generate-a0")
    run = Run.open(state)
    wait_until(lambda: gone(run))
    assert state.committed() == [0]
    assert "train of iteration 1, shard" in (state.jobs / "failure.json").read_text()
    told = typed("status", state.root)
    assert told.returncode == 1, told.stderr
    shown = " ".join(told.stdout.split())
    assert re.search(r"train of iteration 1, shard [01]\b", shown), told.stdout
    assert "adapter_model.safetensors" in shown, told.stdout

    aside.rename(weights)
    healed = typed("launch", *asked)
    assert healed.returncode == 0, healed.stderr
    wait_until(lambda: 2 in state.committed() and gone(run))
    assert not (state.jobs / "failure.json").exists()
    assert not done_twice(run, 2)
    assert manifests(state.root) == expected


def test_a_cancelled_task_ends_the_chain_and_the_same_command_repairs_it(
    tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, "--detach", combats=6, iterations=1, cluster={"tasks": 2})
    # Still at it when SLURM kills what does not end by itself.
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    done = typed("launch", *asked, **held.environment)
    assert done.returncode == 0, done.stderr
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    wait_until(lambda: attempts.record(0, 0) is not None and responses(state) >= 1)
    first = attempts.record(0, 0)
    assert first is not None and first.job is not None
    subprocess.run(["scancel", first.job], check=True)
    wait_until(lambda: first.job not in queue(run, "%i"))
    # The other task goes on, and what depends on both may still be queued.
    again = launched(*asked)
    heard = Listener(again)
    heard.hears("waiting for them")
    held.let_go("iter_01-generate-a0")
    out, err = heard.end()
    assert again.returncode == 0, err
    assert "this run continues without a driver" in out
    wait_until(lambda: 1 in state.committed() and gone(run))
    assert len(attempts.all()) == 2
    assert_undisturbed(run, recipe, 1)


@pytest.mark.parametrize("how", ["refused", "killed"])
def test_an_interrupted_submission_starts_nothing_and_is_cancelled(
    how: str, tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, "--detach", combats=6, iterations=2, cluster={"tasks": 2})
    count = f'echo >> {tmp_path}/calls; [ $(wc -l < {tmp_path}/calls) -le 3 ] && exec "$real" "$@"'
    what = {
        "refused": 'echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2; exit 1',
        # The job is queued, and the launcher never hears of it.
        "killed": '"$real" "$@"; kill -9 $PPID',
    }
    broken = launched(*asked, PATH=path_with(tmp_path / "bin", "sbatch", f"{count}\n{what[how]}"))
    _, err = broken.communicate(timeout=DEADLINE)
    if how == "refused":
        assert broken.returncode == 1
        assert "Batch job submission failed: Job violates accounting/QOS policy" in err
    else:
        assert broken.returncode == -signal.SIGKILL
    run = Run.open(state)
    left = queue(run, "%i|%T|%r")
    if how == "refused":
        # They would use up what the user may have in the queue.
        assert not left and latest_chain(run) is None
    else:
        # Generation, two tasks, is held; the others depend on it.
        assert len(left) == 7, left
        assert {row.split("|")[1] for row in left} == {"PENDING"}
        assert sum(row.endswith("|JobHeldUser") for row in left) == 2
    before = {row.partition("|")[0] for row in left}

    # An ordinary launch and a detached one are the same in this.
    again = typed("launch", *(asked if how == "killed" else asked[:-1]))
    assert again.returncode == 0, again.stderr
    assert not before & {row.partition("|")[0] for row in queue(run, "%i|%T|%r")}
    wait_until(lambda: 2 in state.committed() and gone(run))
    assert_undisturbed(run, recipe, 2)


def test_a_refused_chain_that_cannot_be_cancelled_reports_both_and_is_cancelled_later(
    tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, "--detach", combats=6, iterations=1, cluster={"tasks": 2})
    calls = tmp_path / "calls"
    path_with(
        tmp_path / "bin",
        "sbatch",
        f'echo >> {calls}; [ $(wc -l < {calls}) -le 2 ] && exec "$real" "$@"\n'
        'echo "sbatch: error: Batch job submission failed: Invalid qos specification" >&2; exit 1',
    )
    mute = (
        f'[ -e {calls} ] && {{ echo "Unable to contact slurm controller" >&2; exit 1; }}; exec "$real" "$@"'
    )
    broken = launched(*asked, PATH=path_with(tmp_path / "bin", "squeue", mute))
    _, err = broken.communicate(timeout=DEADLINE)
    said = sentence(subprocess.CompletedProcess([], broken.returncode, "", err))
    assert "Batch job submission failed: Invalid qos specification; correct the profile" in said
    assert "SLURM does not answer (Unable to contact slurm controller): jobs may be left" in said
    run = Run.open(state)
    assert len(queue(run)) == 4
    done = typed("launch", *asked[:-1])
    assert done.returncode == 0, done.stderr
    assert not done_twice(run, 1)
    wait_until(lambda: gone(run))
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)


def test_a_job_queued_after_its_chain_was_cancelled_is_cancelled_when_the_run_is_complete(
    tmp_path: Path,
) -> None:
    run = begin(tmp_path, combats=6, iterations=2)
    advance(run, 1)
    attempts = AttemptDir(run, Generate(), 1)

    def held(number: int, noted: bool) -> str:
        """A job of that attempt, submitted by a launcher that may have died of it; its id."""
        name = job_name(run, attempts, number)
        asked = ["sbatch", "--parsable", "--hold", "--partition=cpu", f"--job-name={name}", "--wrap=true"]
        # By the folder it works in a job is known to be this state's.
        done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=snapshot(run.state))
        job = done.stdout.strip()
        note_jobs([(attempts, number)], Jobs([ArrayPart(name, 0, 1, job if noted else None)]))
        return job

    mine = held(5, noted=True)
    held(6, noted=False)
    done = typed("launch", "--state", run.state.root)
    assert done.returncode == 0 and "Done: 2 iterations." in done.stdout, done.stderr
    assert queue(run, "%i") == [mine]
    for number, how in ((7, ()), (8, ("--profile", "devcluster", "--detach"))):
        held(number, noted=False)
        done = typed("launch", "--state", run.state.root, *how)
        assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
        assert queue(run, "%i") == [mine]


def test_a_complete_chain_that_is_still_held_is_released_by_the_next_command(
    tmp_path: Path, launched: Launched
) -> None:
    _, state, asked = scene(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    silent = 'case "$1" in release) echo "Unable to contact slurm controller (connect failure)" >&2; exit 1;; esac; exec "$real" "$@"'
    broken = launched(*asked, "--detach", PATH=path_with(tmp_path / "bin", "scontrol", silent))
    _, err = broken.communicate(timeout=DEADLINE)
    assert broken.returncode == 1
    silence = "SLURM does not answer (Unable to contact slurm controller (connect failure))"
    assert f"{silence}: the chain is submitted but held" in err
    run = Run.open(state)
    assert "PENDING|JobHeldUser" in queue(run, "%T|%r")
    done = typed("launch", *asked)
    assert done.returncode == 0, done.stderr
    assert state.committed() == [0, 1] and not done_twice(run, 1)
    assert len(AttemptDir(run, Generate(), 1).all()) == 1
