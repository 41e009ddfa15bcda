"""Members trained at the same time: each ends bit-identical to its training alone, whatever the others do."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_adapters import (
    Member,
    Stop,
    fresh_folder,
    make_mixture,
    random_examples,
    read_log,
    same,
    tensors,
    without_seconds,
)

from sparta.engines.factory import loads_so_far
from sparta.recipes.pool import Lora
from sparta.training import lora_stack, passes, preemption
from sparta.training.dpo import train_dpo, train_members
from sparta.training.job import TrainingJob, TrainingReport, silent

MakeJob = Callable[..., TrainingJob]
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "accumulation": 2,
    "epochs": 2,
    "max_grad_norm": 0.05,
    "warmup": 0.2,
    "weight_decay": 0.01,
    "save_updates": 2,
}
SHAPES = (
    Lora(rank=4, alpha=8),
    Lora(rank=2, alpha=16, targets=("q_proj", "down_proj")),
    Lora(rank=7, alpha=3, targets=("v_proj", "o_proj", "lm_head")),
    Lora(rank=4, alpha=8),
)
PAIRS = (17, 17, 9, 3)


@pytest.fixture
def make_jobs(make_job: MakeJob, member: Member, tmp_path: Path) -> Callable[[str], list[TrainingJob]]:
    """Jobs of four members that differ in all that members can differ in."""

    def make(name: str, **settings: Any) -> list[TrainingJob]:
        return [
            make_job(
                f"{name}-{number}",
                {**SETTINGS, **settings},
                model=f"m{number}",
                adapter=_adapter(tmp_path, member, number),
                examples=random_examples(PAIRS[number], seed=number % 2),
                seed=number,
            )
            for number in range(len(SHAPES))
        ]

    return make


def _adapter(folder: Path, member: Member, number: int) -> Path:
    """A new adapter that is not without effect."""
    from safetensors.torch import save_file

    made = fresh_folder(folder / f"adapter{number}", member.base, SHAPES[number], seed=number)
    torch.manual_seed(number)
    changed = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in tensors(made).items()}
    save_file(changed, made / "adapter_model.safetensors")
    return made


def together(
    jobs: Sequence[TrainingJob], at_once: int = 4, progress: Any = None
) -> dict[str, TrainingReport]:
    reports: dict[str, TrainingReport] = {}
    train_members(
        jobs,
        at_once,
        progress or (lambda job: silent),
        lambda job, report: reports.update({job.model: report}),
    )
    return reports


def assert_same(jobs: Sequence[TrainingJob], others: Sequence[TrainingJob]) -> None:
    for one, other in zip(jobs, others, strict=True):
        assert same(one.out, other.out), one.model
        assert without_seconds(one.out) == without_seconds(other.out)
        assert not same(one.out, one.adapter)


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_checkpointing": True}, {"batch_size": 1, "accumulation": 3, "schedule": "linear"}],
    ids=["", "gradient checkpointing", "batch of one"],
)
@pytest.mark.parametrize("at_once", [4, 3])
def test_each_ends_as_it_would_alone(
    make_jobs: Callable[..., list[TrainingJob]], settings: dict[str, Any], at_once: int
) -> None:
    alone, joint = make_jobs("alone", **settings), make_jobs("joint", **settings)
    expected = [train_dpo(job) for job in alone]
    reports = together(joint, at_once)
    assert_same(joint, alone)
    assert [replace(reports[job.model], seconds=0.0) for job in joint] == [
        replace(report, seconds=0.0) for report in expected
    ]
    assert len({report.steps for report in expected}) == 3, "some have finished before others"


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}], ids=["", "checkpointing"])
def test_as_on_a_gpu_all_blocks_multiplied_at_once_each_ends_so_up_to_rounding(
    make_jobs: Callable[..., list[TrainingJob]], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Blocks of different numbers of pairs and lengths are then in one batch, filled to the largest."""
    alone, joint = make_jobs("alone", **settings), make_jobs("joint", **settings)
    for job in alone:
        train_dpo(job)
    for module in (passes, lora_stack):
        monkeypatch.setattr(module, "keeps_blocks_apart", lambda device: False)
    together(joint)
    for one, other in zip(joint, alone, strict=True):
        losses = [[record["loss"] for record in read_log(job.out)] for job in (one, other)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
        expected = tensors(other.out)
        gaps = [(tensor - expected[name]).abs().max() for name, tensor in tensors(one.out).items()]
        # Adam divides by the gradient's own size: where a gradient is nearly nothing, rounding decides its sign.
        assert max(gaps) < 1e-4 and sorted(gaps)[len(gaps) // 2] < 1e-5
        assert not same(one.out, one.adapter)


def test_with_a_base_in_half_precision_too(make_jobs: Callable[..., list[TrainingJob]]) -> None:
    alone = [replace(job, dtype="bfloat16") for job in make_jobs("alone")]
    joint = [replace(job, dtype="bfloat16") for job in make_jobs("joint")]
    for job in alone:
        train_dpo(job)
    together(joint)
    assert_same(joint, alone)


def test_with_several_threads_too(make_jobs: Callable[..., list[TrainingJob]]) -> None:
    alone = [replace(job, threads=2) for job in make_jobs("alone")]
    joint = [replace(job, threads=2) for job in make_jobs("joint")]
    for job in alone:
        train_dpo(job)
    together(joint)
    assert_same(joint, alone)


@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_killed_and_resumed_each_ends_as_without(
    make_jobs: Callable[..., list[TrainingJob]], stop_at: int
) -> None:
    """At 4 the last of them is done, at 9 two are."""
    undisturbed, killed = make_jobs("undisturbed"), make_jobs("killed")
    together(undisturbed)

    def progress(job: TrainingJob) -> Any:
        def at(update: int, total: int, loss: float | None) -> None:
            if job.model == "m1" and update == stop_at:
                raise Stop

        return at

    with pytest.raises(Stop):
        together(killed, progress=progress)
    done = [job for job in killed if job.out.exists()]
    assert len(done) == {1: 0, 4: 1, 9: 2}[stop_at]
    together([job for job in killed if job not in done])
    assert_same(killed, undisturbed)


def test_members_resumed_from_different_updates_go_on_together(
    make_jobs: Callable[..., list[TrainingJob]],
) -> None:
    undisturbed, killed = make_jobs("undisturbed"), make_jobs("killed")
    together(undisturbed)
    for number, job in enumerate(killed[:3]):

        def stop(update: int, total: int, loss: float | None, last: int = 2 * number + 1) -> None:
            if update == last:
                raise Stop

        with pytest.raises(Stop):
            train_dpo(job, stop)
    together(killed)
    assert_same(killed, undisturbed)


class Gone(Exception):
    pass


def test_asked_to_go_all_save_the_update_they_are_at(make_jobs: Callable[..., list[TrainingJob]]) -> None:
    def go() -> None:
        raise Gone

    undisturbed, jobs = make_jobs("undisturbed"), make_jobs("preempted")
    together(undisturbed)
    first = {job.model: silent for job in jobs} | {
        "m0": lambda update, *_: update == 3 and preemption.postpone(go)
    }
    with pytest.raises(Gone):
        together(jobs, progress=lambda job: first[job.model])
    left = [job for job in jobs if not job.out.exists()]
    assert all((job.work / "checkpoint-3").is_dir() for job in left) and len(left) >= 3
    updates: list[int] = []
    together(left, progress=lambda job: lambda update, *_: updates.append(update))
    assert min(updates) == 4
    assert_same(jobs, undisturbed)


def test_a_task_loads_the_base_once_for_all(make_jobs: Callable[..., list[TrainingJob]]) -> None:
    before = loads_so_far()
    together(make_jobs("one"), 1)
    together(make_jobs("all"), 4)
    after = loads_so_far()
    assert after.bases - before.bases == 2
    assert after.seconds > before.seconds


def test_batches_hold_as_many_blocks_as_fit(
    make_jobs: Callable[..., list[TrainingJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, joint = make_jobs("alone"), make_jobs("joint")
    together(alone)
    monkeypatch.setattr(passes, "_CPU_TOKENS", 1)
    monkeypatch.setattr(passes, "REFERENCE_TOKENS", {"cpu": 100})
    together(joint)
    assert_same(joint, alone)


def test_a_member_without_a_usable_pair_is_copied_and_the_others_learn(
    make_jobs: Callable[..., list[TrainingJob]],
) -> None:
    first, *others = make_jobs("joint")
    reports = together([replace(first, examples=()), *others])
    assert reports["m0"].steps == 0 and same(first.out, first.adapter)
    assert all(reports[job.model].steps for job in others)


def test_members_of_different_bases_are_not_trained_together(
    make_jobs: Callable[..., list[TrainingJob]], tmp_path: Path
) -> None:
    first, *others = make_jobs("joint")
    with pytest.raises(ValueError, match="m1 and m0 have different bases"):
        together([replace(first, base=str(tmp_path)), *others])


def test_a_mixture_of_experts_is_trained_one_member_after_another(make_job: MakeJob, tmp_path: Path) -> None:
    """Its experts get some rows of a batch alone, and could not tell whose they are."""
    base = make_mixture(tmp_path / "moe")
    shape = Lora(rank=2, targets=("q_proj", "v_proj"))
    folders = [fresh_folder(tmp_path / f"moe{number}", base, shape, seed=number) for number in range(2)]

    def jobs(name: str) -> list[TrainingJob]:
        return [
            make_job(f"{name}-{number}", base=str(base), adapter=folder, model=f"m{number}", seed=number)
            for number, folder in enumerate(folders)
        ]

    alone, joint = jobs("alone"), jobs("joint")
    for job in alone:
        train_dpo(job)
    together(joint)
    assert_same(joint, alone)
