"""A killed job ends with the weights that it would have had without the kill."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from support.scripted_run import DEADLINE
from support.tiny_adapters import Stop, Watch, random_examples, read_log, same, without_seconds

from sparta.errors import SpartaError
from sparta.training.checkpoints import SEAL, is_sealed, job_identity
from sparta.training.dpo import train_dpo
from sparta.training.job import TrainingJob
from sparta.training.learner import OPTIMIZER, STATE
from sparta.training.loading import load_base
from sparta.training.optimizers import make_optimizer, restore_state, saved_state

MakeJob = Callable[..., TrainingJob]
EVERY_TWO = {"save_updates": 2}


@pytest.fixture
def stopped(make_job: MakeJob) -> TrainingJob:
    """A job of eight updates that ended in the sixth, its checkpoints after the second and the fourth."""
    job = make_job("stopped", EVERY_TWO)
    with pytest.raises(Stop):
        train_dpo(job, Watch(stop_at=6))
    assert not job.out.exists()
    assert sorted(path.name for path in job.work.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    return job


@pytest.fixture
def uninterrupted(make_job: MakeJob) -> Path:
    job = make_job("uninterrupted")
    train_dpo(job)
    return job.out


def test_a_resumed_job_ends_with_the_same_weights_and_log(stopped: TrainingJob, uninterrupted: Path) -> None:
    watch = Watch()
    report = train_dpo(stopped, watch)
    assert watch.updates == [5, 6, 7, 8]
    assert same(stopped.out, uninterrupted)
    assert without_seconds(stopped.out) == without_seconds(uninterrupted)
    assert (report.steps, report.first_loss) == (8, without_seconds(uninterrupted)[0]["loss"])
    seconds = [record["seconds"] for record in read_log(stopped.out)]
    assert seconds == sorted(seconds)
    assert not stopped.work.exists()


def test_checkpoints_hold_the_trained_adapter_and_no_reference(stopped: TrainingJob) -> None:
    checkpoint = stopped.work / "checkpoint-4"
    assert is_sealed(checkpoint)
    assert not [path for path in checkpoint.iterdir() if path.is_dir()]
    assert not same(checkpoint, stopped.adapter)
    assert not (stopped.work / "README.md").exists()


@pytest.mark.parametrize("damage", ["cut", "lost", "unsealed", "half a seal"])
def test_a_torn_checkpoint_is_passed_over(stopped: TrainingJob, uninterrupted: Path, damage: str) -> None:
    newest = stopped.work / "checkpoint-4"
    if damage == "cut":
        os.truncate(newest / OPTIMIZER, 100)
    elif damage == "lost":
        (newest / STATE).unlink()
    elif damage == "unsealed":
        (newest / SEAL).unlink()
    else:
        os.truncate(newest / SEAL, 20)
    watch = Watch()
    train_dpo(stopped, watch)
    assert watch.updates[0] == 3
    assert same(stopped.out, uninterrupted)


def test_without_a_whole_checkpoint_the_job_starts_over(stopped: TrainingJob, uninterrupted: Path) -> None:
    for checkpoint in stopped.work.glob("checkpoint-*"):
        (checkpoint / "adapter_model.safetensors").unlink()
    watch = Watch()
    train_dpo(stopped, watch)
    assert watch.updates[0] == 1
    assert same(stopped.out, uninterrupted)


def test_checkpoints_of_another_job_are_not_resumed_from(stopped: TrainingJob, make_job: MakeJob) -> None:
    examples = random_examples(16, seed=1)
    fresh = make_job("fresh", examples=examples)
    train_dpo(fresh)
    watch = Watch()
    train_dpo(replace(stopped, examples=examples), watch)
    assert watch.updates[0] == 1
    assert same(stopped.out, fresh.out)


KILLED = """
import os, pickle, signal, sys
import torch
torch.set_num_threads(1)
from sparta.training import learner
from sparta.training.dpo import train_dpo
seal = learner.seal
def seal_or_die(checkpoint):
    if checkpoint.name == "checkpoint-4":
        os.truncate(checkpoint / learner.OPTIMIZER, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    seal(checkpoint)
learner.seal = seal_or_die
train_dpo(pickle.load(open(sys.argv[1], "rb")))
"""


def test_a_job_killed_while_it_saves_is_resumed(
    make_job: MakeJob, uninterrupted: Path, tmp_path: Path
) -> None:
    job = make_job("killed", EVERY_TWO)
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(job))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job.pickle")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert (job.work / "checkpoint-4").is_dir()
    assert not job.out.exists()
    watch = Watch()
    train_dpo(job, watch)
    assert watch.updates[0] == 3
    assert same(job.out, uninterrupted)
    assert without_seconds(job.out) == without_seconds(uninterrupted)


def test_what_a_kill_left_beside_the_adapter_is_cleared_away(stopped: TrainingJob) -> None:
    leftover = stopped.out.with_name(f".{stopped.out.name}.0123456789abcdef.tmp")
    shutil.copytree(stopped.adapter, leftover)
    train_dpo(stopped)
    assert not leftover.exists()


@pytest.mark.parametrize("name", [OPTIMIZER, STATE, "adapter_model.safetensors"])
def test_a_disk_that_takes_no_checkpoint_is_named(
    name: str, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def failing(path: Path, data: bytes) -> int:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    job = make_job(settings=EVERY_TWO)
    with pytest.raises(SpartaError, match=r"disk or quota that holds .*checkpoint-2 is full"):
        train_dpo(job)
    monkeypatch.undo()
    assert train_dpo(job).steps == 8


def test_a_checkpoint_of_an_earlier_version_is_not_resumed_from(
    stopped: TrainingJob, uninterrupted: Path
) -> None:
    """TRL's trainer wrote them once: their job has another identity."""
    identity = json.loads((stopped.work / "job.json").read_text())
    (stopped.work / "job.json").write_text(json.dumps(identity | {"identity": "0" * 64}))
    watch = Watch()
    train_dpo(stopped, watch)
    assert watch.updates[0] == 1
    assert same(stopped.out, uninterrupted)


def test_new_settings_leave_the_identity_of_earlier_jobs_and_those_that_decide_weights_change_it(
    make_job: MakeJob,
) -> None:
    """The identity as versions without these settings computed it: a training that they left unfinished goes on."""
    job = make_job()
    settings = job.settings.model_dump(mode="json", exclude={"save_updates", "liger", "optimizer"})
    settings |= {"epochs": 1, "gradient_checkpointing": False}
    then = hashlib.sha256(
        json.dumps([job.base, "float32", job.seed, settings, "own loop"], sort_keys=True).encode()
    )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        then.update(hashlib.sha256((job.adapter / name).read_bytes()).hexdigest().encode())
    for example in job.examples:
        then.update(repr(tuple(vars(example).values())).encode())
    now = job_identity(job, job.examples, "float32")
    assert now == then.hexdigest()
    same_weights = (make_job("b", {"liger": True}), replace(job, attention="eager"))
    assert {job_identity(one, job.examples, "float32") for one in same_weights} == {now}
    other = (make_job("c", {"optimizer": "adamw_8bit"}), replace(job, quantize="nf4"))
    assert len({now, *(job_identity(one, job.examples, "float32") for one in other)}) == 3


def test_the_attention_that_is_asked_for_trains_as_any_other(make_job: MakeJob) -> None:
    plain, eager = make_job("plain"), make_job("eager", attention="eager")
    assert load_base(eager, "cpu", "float32").config._attn_implementation == "eager"
    mine, theirs = train_dpo(eager), train_dpo(plain)
    assert mine.mean_loss == pytest.approx(theirs.mean_loss or 0, abs=1e-5)


@pytest.mark.parametrize("overflows", [0, 1, 3])
def test_an_optimizer_goes_on_from_wherever_it_was_though_its_first_steps_were_left_out(
    overflows: int,
) -> None:
    gradients = [torch.full((3,), float("inf"))] * overflows + [torch.tensor([1.0, -2.0, 3.0])] * 3

    def stepped(restarts_after: int | None) -> torch.Tensor:
        weights = torch.nn.Parameter(torch.ones(3))
        optimizer = make_optimizer("adamw", weights, 0.1, 0.01)
        scaler = torch.amp.GradScaler("cpu")
        for number, gradient in enumerate(gradients):
            if number == restarts_after:
                tensors, steps = saved_state(optimizer, weights)
                assert steps == max(0, number - overflows)
                optimizer = make_optimizer("adamw", weights, 0.1, 0.01)
                restore_state(optimizer, weights, load(save(tensors)), steps)
            scaler.scale(torch.zeros(()))
            weights.grad = gradient * scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
        return weights.detach()

    undisturbed = stepped(None)
    assert not torch.equal(undisturbed, torch.ones(3))
    for number in range(len(gradients)):
        assert torch.equal(stepped(number), undisturbed)
