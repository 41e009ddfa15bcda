"""A base divided over two GPUs of a node: its training job asks SLURM for them, two processes train, and a preempted one goes on."""

import subprocess
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, Launched, wait_until
from support.slurm_runs import variant
from support.tiny_adapters import read_log

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.phases.train import Train
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_a_training_job_asks_for_two_gpus_which_share_the_work_also_after_a_preemption(
    tmp_path: Path, launched: Launched
) -> None:
    state = StateDir(tmp_path / "state")
    gpu = {"partition": "gpu", "cpus": 1, "time": 10}
    profile = variant(tmp_path / "profile.yaml", gpu=gpu)
    asked = (
        "combats=16",
        "cluster.tasks=1",
        "cluster.gpus_per_training=2",
        "dpo.epochs=40",
        "dpo.save_updates=5",
    )
    settings = [word for setting in asked for word in ("--set", setting)]
    driver = launched("--iters", 1, "--recipe", "toy", "--state", state.root, "--profile", profile, *settings)
    work = state.jobs / "iter_01" / "train"
    # A task that is told to stop before its first update leaves without one.
    wait_until(lambda: list(work.glob("checkpoints-*/checkpoint-*")))
    run = Run.open(state)
    attempts = AttemptDir(run, Train(), 1)
    [record] = attempts.records(attempts.all()[0])
    subprocess.run(["scancel", "--signal=USR2", str(record.job)], check=True, timeout=DEADLINE)
    out, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, out + err
    [record] = attempts.records(attempts.all()[0])
    assert (record.outcome, record.requeues) == ("done", 1)
    for phase, gpus in ((Generate(), 1), (Train(), 2)):
        [script] = AttemptDir(run, phase, 1).logs.glob("*_submission.sh")
        assert f"#SBATCH --gpus-per-node=a100:{gpus}\n" in script.read_text()
    for model in run.models:
        log = read_log(run.iteration(1).adapter(model))
        assert [record["update"] for record in log] == list(range(1, len(log) + 1)), model
        assert all(record["processes"] == 2 for record in log), model
