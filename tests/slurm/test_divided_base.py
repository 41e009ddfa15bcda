"""A base divided over two GPUs of a node: its training jobs ask SLURM for them, and two processes train."""

from pathlib import Path

import pytest
from support.scripted_run import typed
from support.slurm_runs import variant
from support.tiny_adapters import read_log

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.phases.train import Train
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def test_training_jobs_ask_for_two_gpus_and_share_the_work(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    gpu = {"partition": "gpu", "cpus": 1, "time": 10}
    profile = variant(tmp_path / "profile.yaml", gpu=gpu)
    few = ("combats=8", "cluster.tasks=1", "cluster.gpus_per_training=2")
    settings = [word for setting in few for word in ("--set", setting)]
    done = typed(
        "launch", "--iters", 1, "--recipe", "toy", "--state", state.root, "--profile", profile, *settings
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(state)
    for phase, gpus in ((Generate(), 1), (Train(), 2)):
        [script] = AttemptDir(run, phase, 1).logs.glob("*_submission.sh")
        assert f"#SBATCH --gpus-per-node=a100:{gpus}\n" in script.read_text()
    for model in run.models:
        log = read_log(run.iteration(1).adapter(model))
        assert log and all(record["processes"] == 2 for record in log), model
