"""A base divided over two processes trains members as one process does, up to rounding; any of its processes may die at any time."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.tiny_adapters import (
    Member,
    Stop,
    Watch,
    fresh_folder,
    make_mixture,
    random_examples,
    read_log,
    same,
    tensors,
)

from sparta.errors import SpartaError
from sparta.recipes.pool import Lora
from sparta.training import preemption
from sparta.training.checkpoints import is_sealed
from sparta.training.dpo import threads_of_each, train_members
from sparta.training.job import Progress, TrainingJob, TrainingReport, silent
from sparta.training.ranks import _portable, check_gpus, check_memory

MakeJob = Callable[..., TrainingJob]
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "accumulation": 3,
    "epochs": 2,
    "max_grad_norm": 0.05,
    "weight_decay": 0.01,
    "save_updates": 2,
    "gradient_checkpointing": True,
}
SHAPES = (Lora(rank=4, alpha=8), Lora(rank=7, alpha=3, targets=("v_proj", "o_proj", "lm_head")))
PAIRS = (17, 9)


def done(
    jobs: Sequence[TrainingJob], ranks: int, progress: Progress = silent, at_once: int = 2
) -> list[TrainingReport]:
    reports = {}
    train_members(
        jobs, at_once, lambda _: progress, lambda job, report: reports.update({job.model: report}), ranks
    )
    return [reports[job.model] for job in jobs]


def assert_close(made: Path, expected: Path) -> None:
    """Two adapters and their logs are equal up to rounding."""
    logs = [
        [(record["loss"], record["grad_norm"], record["reward_margin"]) for record in read_log(out)]
        for out in (made, expected)
    ]
    assert len(logs[0]) == len(logs[1]) > 1
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, abs=2e-6, rel=1e-5)
    others = tensors(expected)
    gaps = [(tensor - others[name]).abs().max() for name, tensor in tensors(made).items()]
    # Adam divides by the gradient's own size: where a gradient is nearly nothing, rounding decides its sign.
    assert max(gaps) < 1e-4 and sorted(gaps)[len(gaps) // 2] < 1e-5


def test_members_end_as_in_one_process(make_job: MakeJob, member: Member, tmp_path: Path) -> None:
    folders = [
        fresh_folder(tmp_path / f"adapter{number}", member.base, shape, seed=number)
        for number, shape in enumerate(SHAPES)
    ]

    def jobs(name: str) -> list[TrainingJob]:
        return [
            make_job(
                f"{name}-{number}",
                SETTINGS,
                model=f"m{number}",
                adapter=folder,
                examples=random_examples(PAIRS[number], seed=number),
                seed=number,
            )
            for number, folder in enumerate(folders)
        ]

    alone, shared = jobs("alone"), jobs("shared")
    expected, reports = done(alone, ranks=1), done(shared, ranks=2)
    for job, other, report, one in zip(shared, alone, reports, expected, strict=True):
        assert_close(job.out, other.out)
        assert all(record["processes"] == 2 for record in read_log(job.out))
        assert (report.steps, report.pairs, report.tokens) == (one.steps, one.pairs, one.tokens)
        assert report.first_loss == pytest.approx(one.first_loss) == pytest.approx(0.693147)
        assert not job.work.exists()
    assert not multiprocessing.active_children()


def test_a_killed_process_ends_the_training_with_a_sentence_and_any_number_of_processes_goes_on(
    make_job: MakeJob,
) -> None:
    undisturbed, job = (make_job(name, {"save_updates": 2}) for name in ("undisturbed", "killed"))
    done([undisturbed], 1)
    with pytest.raises(Stop):
        done([job], 1, Watch(stop_at=3))
    updates: list[int] = []
    killed_at = 0.0

    def kill(update: int, total: int, loss: float | None) -> None:
        nonlocal killed_at
        updates.append(update)
        if update == 3:
            # As SLURM at preemption, which the process of the task outlives.
            for child in multiprocessing.active_children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGTERM)
        if update == 5:
            [pid] = [child.pid for child in multiprocessing.active_children() if child.name == "rank 1"]
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed_at = time.monotonic()

    told = r"process 2 of the 2 of this training was killed \(SIGKILL\).*: launch the run again"
    with pytest.raises(SpartaError, match=told):
        done([job], 2, kill)
    assert time.monotonic() - killed_at < 15 and not multiprocessing.active_children()
    assert updates == [3, 4, 5] and not job.out.exists()
    assert is_sealed(job.work / "checkpoint-4")
    watch = Watch()
    done([job], 1, watch)
    assert watch.updates[0] in (5, 6) and watch.updates[-1] == 8
    assert_close(job.out, undisturbed.out)


def go() -> None:
    raise Stop


@pytest.mark.long
def test_asked_to_go_it_saves_the_update_at_hand_if_any_and_two_processes_go_on(make_job: MakeJob) -> None:
    undisturbed, job, later = (
        make_job(name, {"save_updates": 1000}, model=name) for name in ("undisturbed", "asked", "later")
    )
    done([undisturbed], 2)

    def asked(update: int, total: int, loss: float | None) -> None:
        if update == 3:
            assert preemption.postpone(go)

    with pytest.raises(Stop):
        done([job], 2, asked)
    assert not multiprocessing.active_children() and not preemption.requested()
    assert [path.name for path in job.work.glob("checkpoint-*")] == ["checkpoint-3"]
    assert is_sealed(job.work / "checkpoint-3")
    watch = Watch()

    def asked_between_two(ended: TrainingJob, report: TrainingReport) -> None:
        assert ended == job and preemption.postpone(go)

    with pytest.raises(Stop):
        train_members([job, later], 1, lambda _: watch, asked_between_two, 2)
    assert watch.updates == [4, 5, 6, 7, 8] and not list(later.work.glob("checkpoint-*"))
    # The same sums in the same order.
    assert same(job.out, undisturbed.out)


@pytest.mark.long
def test_a_mixture_of_experts_is_divided_too_and_an_error_of_a_process_is_that_of_the_training(
    make_job: MakeJob, tmp_path: Path
) -> None:
    base = make_mixture(tmp_path / "moe")
    adapter = fresh_folder(tmp_path / "adapter", base, Lora(rank=2, targets=("q_proj", "v_proj")))
    alone, shared = (make_job(name, base=str(base), adapter=adapter) for name in ("alone", "shared"))
    done([alone], 1)
    done([shared], 2)
    assert_close(shared.out, alone.out)
    beyond = replace(random_examples(1)[0], chosen_ids=(3, 1000))
    with pytest.raises(SpartaError, match="contains token 1000, but its base .* knows 48 tokens"):
        done([make_job("beyond", base=str(base), adapter=adapter, examples=(beyond,))], 2)


def test_fewer_gpus_than_processes_are_refused() -> None:
    check_gpus("cpu", 64)
    with pytest.raises(
        SpartaError, match=r"^cluster.gpus_per_training is 64, and a training here has \d GPUs?: "
    ):
        check_gpus("cuda", 64)


def test_only_weights_that_each_process_converts_have_to_fit_into_the_memory(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(100, 10), "b": torch.zeros(7, dtype=torch.bfloat16)}
    save_file({**weights, "c": torch.zeros(5, dtype=torch.int8)}, tmp_path / "model.safetensors")
    check_memory(str(tmp_path), "bfloat16", 4, 8000)
    check_memory(str(tmp_path), "float32", 4, 4 * 7 * 4)
    for dtype, available in (("bfloat16", 7999), ("float32", 4 * 7 * 4 - 1)):
        with pytest.raises(
            SpartaError, match=f"stored in .* and trained in {dtype}, so each of the 4 .*: save"
        ):
            check_memory(str(tmp_path), dtype, 4, available)


@pytest.mark.parametrize(
    ("parameters", "own", "asked", "processes", "threads"),
    [(10, 4, 16, 4, 4), (10, 4, 3, 4, 1), (10, 4, 5, 1, 5), (10, 4, None, 4, 1), (10**9, 7, None, 2, 4)],
)
def test_processes_share_the_threads_that_are_asked_for(
    parameters: int, own: int, asked: int | None, processes: int, threads: int
) -> None:
    assert threads_of_each(parameters, own, asked, processes) == threads


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (SpartaError("a sentence"), SpartaError("a sentence")),
        (
            OSError(28, "No space left on device", "/state/x"),
            OSError(28, "No space left on device", "/state/x"),
        ),
        (KeyError("weights"), RuntimeError("KeyError: 'weights'")),
    ],
)
def test_an_error_of_a_rank_is_sent_as_what_it_is(error: BaseException, sent: BaseException) -> None:
    made = _portable(error)
    assert (type(made), str(made)) == (type(sent), str(sent))
    assert type(error).__name__ in made.__notes__[0]
