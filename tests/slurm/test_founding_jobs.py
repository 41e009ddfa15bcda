"""Experts trained from data as one job array on the real SLURM: preempted twice, they are what they would have been; and its script."""

import subprocess
from pathlib import Path

import pytest
from rehearsal import advance, manifests, wait_until
from school import write_school
from test_driver_jobs import Batch
from test_faults import preempt

from sparta.cluster import lifecycle
from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.phases.sft import TrainExperts
from sparta.recipe_files import load
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")

EXPERTS = ("ada", "bea")
ROWS = 400


def tasks(run: Run) -> list[TaskRecord]:
    attempts = AttemptDir(run, TrainExperts(), 0)
    return [record for attempt in attempts.all() for record in attempts.records(attempt)]


def checkpoints(state: StateDir) -> dict[str, int]:
    """The update of the newest whole checkpoint of each expert that has one."""
    found = {}
    for name in EXPERTS:
        seals = (state.jobs / "iter_00" / "sft" / f"checkpoints-{name}").glob("checkpoint-*/SEAL.json")
        updates = [int(seal.parent.name.removeprefix("checkpoint-")) for seal in seals]
        if updates:
            found[name] = max(updates)
    return found


def test_experts_that_are_preempted_twice_are_those_that_nobody_disturbed(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch slurm/init_pool.sh: tasks of one array, preempted twice, go on from their checkpoints."""
    recipe = write_school(
        tmp_path,
        names=EXPERTS,
        others=[{"name": "twin", "copy_of": "ada"}],
        rows=ROWS,
        base=str(tiny_base),
        sft={"epochs": 2, "accumulation": 1, "save_updates": 10, "gradient_checkpointing": False},
        lora={"rank": 4},
        engine={"kind": "hf", "context_length": 256, "device": "cpu"},
    )
    state = StateDir(tmp_path / "state")
    for name, value in (("RECIPE", recipe), ("STATE", state.root), ("PROFILE", "devcluster")):
        monkeypatch.setenv(name, str(value))
    driver = Batch("init_pool.sh", log=tmp_path / "driver.log")
    reached = dict.fromkeys(EXPERTS, 0)
    for time in (1, 2):

        def further(reached: dict[str, int] = reached) -> bool:
            now = checkpoints(state)
            return len(now) == 2 and all(now[name] > reached[name] for name in EXPERTS)

        driver.reaches(further)
        run, reached = Run.open(state), checkpoints(state)
        preempt(record.node for record in tasks(run))
        wait_until(lambda time=time, run=run: [record.requeues for record in tasks(run)] == [time] * 2)
        subprocess.run(["scancel", "--name=urgent"], check=True)
    assert driver.ends() == "COMPLETED", driver.text
    assert f"adapters in {state.iteration(0).adapters}" in driver.text
    assert [(record.outcome, record.requeues) for record in tasks(run)] == [("done", 2)] * 2
    assert len(AttemptDir(run, TrainExperts(), 0).all()) == 1

    calm = lifecycle.begin_or_continue(StateDir(tmp_path / "calm"), load(recipe))
    advance(calm, 0)
    assert manifests(state.root) == manifests(calm.state.root)
    pool = run.pool(0)
    assert pool["twin"].adapter == pool["ada"].adapter != pool["bea"].adapter
