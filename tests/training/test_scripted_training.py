"""Scripted training: the files of a training, and none of its cost."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_adapters import Member, random_examples, random_rows, same, tensors, train_one

from sparta.errors import SpartaError
from sparta.training.factory import train_expert
from sparta.training.job import SftJob, TrainingJob

MakeJob = Callable[..., TrainingJob]
MakeExpert = Callable[..., SftJob]


def test_equal_jobs_give_equal_adapters_and_different_ones_different(
    make_job: MakeJob, member: Member
) -> None:
    job = make_job("one")
    train_one(job, "scripted")
    same_work = make_job("two")
    train_one(same_work, "scripted")
    assert same(job.out, same_work.out)
    following = make_job("following", adapter=job.out)
    others = [
        make_job("seed", seed=99),
        make_job("examples", examples=random_examples(15)),
        following,
    ]
    for other in others:
        train_one(other, "scripted")
        assert not same(job.out, other.out)
    assert all(0 <= value < 1 for value in next(iter(tensors(job.out).values())).tolist())


def test_it_counts_like_dpo_and_leaves_the_same_files(make_job: MakeJob, member: Member) -> None:
    told: list[int] = []
    scripted, real = make_job("scripted", {"max_length": 10}), make_job("real", {"max_length": 10})
    scripted.work.mkdir(parents=True)
    one = train_one(scripted, "scripted", lambda update, total, loss: told.append(update))
    two = train_one(real, "hf")
    assert two.dropped > 0
    assert (one.pairs, one.dropped, one.steps, one.tokens) == (two.pairs, two.dropped, two.steps, two.tokens)
    assert told == list(range(1, one.steps + 1))
    assert sorted(path.name for path in scripted.out.iterdir()) == sorted(
        path.name for path in real.out.iterdir()
    )
    config = "adapter_config.json"
    assert (scripted.out / config).read_bytes() == (real.out / config).read_bytes()
    assert json.loads((scripted.out / "log.jsonl").read_text())["pairs"] == one.pairs
    assert not scripted.work.exists()


def test_without_pairs_the_adapter_is_copied(make_job: MakeJob, member: Member) -> None:
    job = make_job(examples=())
    assert train_one(job, "scripted").steps == 0
    assert same(job.out, member.adapter)


def test_a_job_whose_adapter_is_in_place_reports_again_and_is_not_done_twice(make_job: MakeJob) -> None:
    job = make_job()
    first = train_one(job, "scripted")
    written = (job.out / "adapter_model.safetensors").stat().st_mtime_ns
    assert train_one(job, "scripted") == first
    assert (job.out / "adapter_model.safetensors").stat().st_mtime_ns == written


def test_the_configuration_must_be_that_of_a_plain_lora(
    make_job: MakeJob, tmp_path: Path, member: Member
) -> None:
    config = json.loads((member.adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for change, message in (({"peft_type": "IA3"}, "IA3"), ({"init_lora_weights": "pissa_niter_4"}, "pissa")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(SpartaError, match=message):
            train_one(replace(make_job(), adapter=tmp_path), "scripted")


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = """
import sys
import sparta.training.dpo, sparta.training.sft, sparta.training.packing, sparta.training.runner
import sparta.training.trainer, sparta.training.scripted, sparta.training.factory
print([name for name in ("torch", "transformers", "trl", "peft", "datasets", "safetensors", "numpy") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_scripted_experts_count_like_sft_and_leave_the_same_files(make_expert: MakeExpert) -> None:
    told: list[int] = []
    settings = {"max_length": 12}
    scripted, real = make_expert("scripted", settings, epochs=3), make_expert("real", settings, epochs=3)
    scripted.work.mkdir(parents=True)
    one = train_expert(scripted, "scripted", lambda update, total, loss: told.append(update))
    two = train_expert(real, "hf")
    assert two.dropped > 0
    for count in ("used", "dropped", "steps", "tokens", "taught"):
        assert getattr(one, count) == getattr(two, count)
    assert (one.first_loss, one.mean_loss, one.last_loss) == (None, None, None)
    assert told == list(range(1, one.steps + 1))
    names = [sorted(path.name for path in job.out.iterdir()) for job in (scripted, real)]
    assert names[0] == names[1]
    assert not scripted.work.exists()
    assert train_expert(scripted, "scripted") == one


def test_equal_experts_are_equal_and_different_ones_different(make_expert: MakeExpert) -> None:
    job, again = make_expert("one"), make_expert("two")
    others = [make_expert("seed", seed=99), make_expert("rows", examples=random_rows(15))]
    for made in (job, again, *others):
        train_expert(made, "scripted")
    assert same(job.out, again.out)
    assert not any(same(job.out, other.out) for other in others)
