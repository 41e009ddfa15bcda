"""An expert whose training was interrupted is the expert that it would have been."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.tiny_adapters import Stop, Watch, random_rows, same, without_seconds

from sparta.training.checkpoints import is_sealed
from sparta.training.job import SftJob, SftReport
from sparta.training.sft import train_sft

MakeExpert = Callable[..., SftJob]
SETTINGS = {"save_updates": 2, "accumulation": 2, "gradient_checkpointing": True}


def stopped(job: SftJob, at: int) -> list[int]:
    """Trains until the update `at` and no further; the updates that there were."""
    watch = Watch(stop_at=at)
    with pytest.raises(Stop):
        train_sft(job, watch)
    assert not job.out.exists()
    return watch.updates


def finished(job: SftJob) -> tuple[list[int], SftReport]:
    watch = Watch()
    report = train_sft(job, watch)
    return watch.updates, report


@pytest.mark.parametrize("packing", [False, True])
def test_an_expert_interrupted_twice_is_the_same_to_the_byte(make_expert: MakeExpert, packing: bool) -> None:
    settings = SETTINGS | {"packing": packing}
    undisturbed = make_expert("undisturbed", settings | {"save_updates": 1000}, epochs=2)
    told, report = finished(undisturbed)
    assert told == list(range(1, 9))
    job = make_expert("disturbed", settings, epochs=2)
    assert stopped(job, at=3) == [1, 2, 3]
    assert is_sealed(job.work / "checkpoint-2")
    assert stopped(job, at=7) == [3, 4, 5, 6, 7]
    told, resumed = finished(job)
    assert told == [7, 8]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (job.out / name).read_bytes() == (undisturbed.out / name).read_bytes()
    assert without_seconds(job.out) == without_seconds(undisturbed.out)
    assert replace(resumed, seconds=report.seconds) == report
    assert not job.work.exists()


def test_a_torn_checkpoint_is_passed_over(make_expert: MakeExpert) -> None:
    undisturbed = make_expert("undisturbed", SETTINGS, epochs=2)
    train_sft(undisturbed)
    job = make_expert("torn", SETTINGS, epochs=2)
    stopped(job, at=5)
    os.truncate(job.work / "checkpoint-4" / "optimizer.pt", 100)
    assert finished(job)[0][0] == 3
    assert same(job.out, undisturbed.out)


@pytest.mark.parametrize(
    "change",
    [{"examples": random_rows(16, seed=1)}, {"epochs": 3}, {"seed": 12}, {"settings": {"warmup": 0.0}}],
)
def test_checkpoints_of_another_job_are_not_resumed_from(
    make_expert: MakeExpert, change: dict[str, Any]
) -> None:
    job = make_expert("job", SETTINGS, epochs=2)
    stopped(job, at=3)
    if "settings" in change:
        change = {"settings": job.settings.model_copy(update=change["settings"])}
    assert finished(replace(job, **change))[0][0] == 1


def test_the_taught_tokens_belong_to_the_job(make_expert: MakeExpert) -> None:
    job = make_expert("job", SETTINGS, epochs=2)
    stopped(job, at=3)
    first, *rest = job.examples
    other = replace(first, is_target=(False, *[True] * (first.length - 1)))
    assert finished(replace(job, examples=(other, *rest)))[0][0] == 1
