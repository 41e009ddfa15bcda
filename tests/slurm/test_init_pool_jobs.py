"""Experts trained from data on the real SLURM, one task each: preempted, cancelled or without a driver, they are bit-identical."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.expert_recipes import write_lessons, write_school
from support.scripted_run import launches, manifests, rows_on_disk, typed, wait_until
from support.slurm_runs import HALTS_AT, Batch, HeldBack, Listener, gone, preempt, queue, undisturbed, variant

from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.cluster.slurm.detached import latest_chain
from sparta.phases.train_experts import TrainExperts
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")

SAVED_EVERY = 10
"""Updates; halted, a training is between two of these checkpoints."""


def school(folder: Path, base: Path) -> Path:
    """A recipe with two experts, which are trained for 40 updates each, and a copy of one."""
    return write_school(
        folder,
        names=("ada", "bea"),
        others=[{"name": "twin", "copy_of": "ada"}],
        rows=40,
        base=str(base),
        sft={
            "epochs": 2,
            "accumulation": 1,
            "save_updates": SAVED_EVERY,
            "gradient_checkpointing": False,
        },
        lora={"rank": 4},
        engine={"kind": "hf", "context_length": 256, "device": "cpu"},
    )


def tasks(run: Run) -> list[TaskRecord]:
    attempts = AttemptDir(run, TrainExperts(), 0)
    return [record for attempt in attempts.all() for record in attempts.records(attempt)]


def record_of(run: Run, before: TaskRecord) -> TaskRecord:
    """What the task that said `before` says now."""
    record = AttemptDir(run, TrainExperts(), 0).record(0, before.shard)
    assert record is not None
    return record


def work_of(state: StateDir) -> Path:
    """Where the training of bea keeps its checkpoints."""
    return state.jobs / "iter_00" / "sft" / "checkpoints-bea"


def newest_checkpoint(state: StateDir) -> int:
    """The update of the newest whole one of bea."""
    seals = work_of(state).glob("checkpoint-*/SEAL.json")
    return max(int(seal.parent.name.removeprefix("checkpoint-")) for seal in seals)


def test_experts_that_are_preempted_twice_cancelled_and_left_alone_are_those_that_nobody_disturbed(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it happens to bea; ada is done before that, and stays as it is."""
    # So few rows that the training of ada is over before it would halt.
    write_lessons(tmp_path / "lessons" / "ada.jsonl", HALTS_AT - 5)
    recipe, state = school(tmp_path, tiny_base), StateDir(tmp_path / "state")
    profile = variant(tmp_path / "profile.yaml", phases={"sft": {"partition": "gpu-grace"}})
    first, *restarted, second = jobs = (
        *("iter_00-sft-a0", "iter_00-sft-a0+1", "iter_00-sft-a0+2"),
        "iter_00-sft-a1",
    )
    held = HeldBack(tmp_path, *jobs)
    for name, value in held.environment.items():
        monkeypatch.setenv(name, value)
    for name, value in {"RECIPE": recipe, "STATE": state.root, "PROFILE": profile}.items():
        monkeypatch.setenv(name, str(value))
    driver = Batch("init_pool.sh", log=tmp_path / "driver.log")
    ada = state.iteration(0).adapter("ada") / "adapter_model.safetensors"
    driver.reaches(lambda: held.halted(first) == 1)
    run = Run.open(state)
    driver.reaches(lambda: sorted(record.outcome for record in tasks(run)) == ["done", "running"])
    before = ada.stat()
    [bea] = [record for record in tasks(run) if record.outcome == "running"]

    # Preempted it is told first, and saves the update that it is at; started again it makes the next one, and is preempted once more.
    assert newest_checkpoint(state) == SAVED_EVERY
    spent = {}
    for time, job in enumerate(restarted, start=1):
        preempt([record_of(run, bea).node])
        driver.reaches(lambda: record_of(run, bea).outcome == "requeued")
        saved = newest_checkpoint(state)
        assert saved == HALTS_AT + time - 1
        history = work_of(state) / f"checkpoint-{saved}" / "trainer_state.json"
        spent[saved] = json.loads(history.read_text())["log_history"][-1]["seconds"]
        subprocess.run(["scancel", "--name=urgent"], check=True)
        driver.reaches(lambda job=job: held.halted(job) == 1)
        assert (record_of(run, bea).requeues, len(queue(run))) == (time, 1)

    # Cancelled it is killed without a word, and so is its driver; what is saved stays.
    done = typed("launch", "--state", state.root, "--cancel")
    assert done.returncode == 0, done.stderr
    assert "Ending the driver, process" in done.stdout and "Ended 1 task of" in done.stdout
    assert driver.ends() == "CANCELLED"
    wait_until(lambda: gone(run))
    assert state.committed() == [] and holder(state) is None
    assert newest_checkpoint(state) == saved

    # The same command goes on; a driver that is asked to go leaves its tasks to the next.
    asked = ("--recipe", recipe, "--state", state.root, "--profile", profile)
    with launches("init_pool") as start:
        going = start(*asked)
        wait_until(lambda: held.halted(second) == 1)
        going.send_signal(signal.SIGTERM)
        out, err = Listener(going).end()
        assert going.returncode == 130, out + err
        assert "training experts: tasks continue without this driver (--cancel ends them)" in out
        assert f"continue with\n  python jobs/init_pool.py --state {state.root}" in err
        assert queue(run) == ["RUNNING"]
        last = start(*asked)
        heard = Listener(last)
        heard.hears("training experts: tasks of an earlier launch are still running, waiting for them")
        held.let_go(second)
        out, err = heard.end()
        assert last.returncode == 0, err
    assert f"adapters in {state.iteration(0).adapters}" in out.replace("\n", " ")

    assert [attempt.items for attempt in AttemptDir(run, TrainExperts(), 0).all()] == [2, 1]
    assert sorted(rows_on_disk(run, TrainExperts(), 0)) == ["ada", "bea"]
    assert (ada.stat().st_ino, ada.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    log = (state.iteration(0).adapter("bea") / "log.jsonl").read_text().splitlines()
    measured = {update: json.loads(log[update - 1])["seconds"] for update in spent}
    assert measured == spent, "an update that was saved was made again"
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 0)
    pool = run.pool(0)
    assert pool["twin"].adapter == pool["ada"].adapter != pool["bea"].adapter


def test_a_pool_that_is_to_be_trained_needs_no_driver_alone_or_before_its_iterations(tmp_path: Path) -> None:
    recipe = write_school(tmp_path, iterations=2, combats=4, cluster={"tasks": 2})
    states = {"launch": StateDir(tmp_path / "launch"), "init_pool": StateDir(tmp_path / "pool")}
    for command, state in states.items():
        asked = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster", "--detach")
        done = typed(command, *asked)
        assert done.returncode == 0, done.stderr
        assert "this run continues without a driver" in done.stdout
        chain = latest_chain(Run.open(state))
        assert holder(state) is None and chain is not None and chain.whole
        links = [what for what, _ in chain.links]
        assert (chain.last, links[0]) == (2 if command == "launch" else 0, "sft 0")
        assert links[1:] == (
            ["found 0"]
            if command == "init_pool"
            else [
                "found 0 and plan 1",
                *("generate 1", "judge 1", "merge 1", "train 1", "commit 1 and plan 2"),
                *("generate 2", "judge 2", "merge 2", "train 2", "commit 2"),
            ]
        )
    expected = undisturbed(tmp_path, recipe, 2)
    for (command, state), last in zip(states.items(), (2, 0), strict=True):
        run = Run.open(state)
        wait_until(lambda last=last, state=state, run=run: last in state.committed() or gone(run))
        wait_until(lambda run=run: gone(run))
        assert manifests(state.root) == dict(sorted(expected.items())[: last + 1])
        assert [len(AttemptDir(run, TrainExperts(), 0).all()), len(tasks(run))] == [1, 2]
        again = typed(command, "--state", state.root, "--detach")
        assert again.returncode == 0 and "nothing to do" in again.stdout, again.stderr
