"""DPO continues an adapter: right loss, right reference, right tokens, right files."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_adapters import EOS, PAD, Member, Stop, Watch, random_examples, read_log, same, tensors

from sparta.errors import SpartaError
from sparta.training import dpo
from sparta.training.dpo import train_dpo
from sparta.training.dpo_batches import DpoBatch
from sparta.training.job import PreferenceExample, TrainingJob, usable_pairs
from sparta.training.learner import Learner
from sparta.training.runner import training_order

MakeJob = Callable[..., TrainingJob]


def completion_logp(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
    """log p(completion | prompt), summed over its tokens, one sequence at a time and without padding."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logp = model(ids).logits[0, :-1].log_softmax(-1)
    return logp.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :].sum()


def loss_by_hand(policy: Any, reference: Any, examples: list[PreferenceExample], beta: float) -> float:
    losses = []
    for example in examples:
        margin = torch.tensor(0.0)
        for sign, completion in ((1, example.chosen_ids), (-1, example.rejected_ids)):
            margin += sign * completion_logp(policy, example.prompt_ids, completion)
            margin -= sign * completion_logp(reference, example.prompt_ids, completion)
        losses.append(-torch.nn.functional.logsigmoid(beta * margin).item())
    return sum(losses) / len(losses)


def test_every_iteration_continues_the_adapter_of_the_one_before(make_job: MakeJob, member: Member) -> None:
    adapter, ids = member.adapter, [5, 9, 3, 7]
    for t in range(1, 4):
        job = make_job(f"iter_{t}", adapter=adapter, examples=random_examples(8, seed=t))
        report = train_dpo(job)
        assert report.first_loss == pytest.approx(math.log(2), abs=1e-4)
        assert not torch.allclose(member.logits(adapter, ids), member.logits(job.out, ids), atol=1e-4)
        assert tensors(job.out).keys() == tensors(member.adapter).keys()
        adapter = job.out


def test_the_reference_is_the_starting_adapter_also_after_a_resume(make_job: MakeJob, member: Member) -> None:
    settings = {"beta": 0.5, "save_updates": 2}
    job = make_job(settings=settings)
    with pytest.raises(Stop):
        train_dpo(job, Watch(stop_at=3))
    order = training_order(len(job.examples), 1, job.seed, "DPO")
    batch = [job.examples[i] for i in order[4:6]]
    policy, start = member.load(job.work / "checkpoint-2"), member.load(member.adapter)
    expected = loss_by_hand(policy, start, batch, beta=0.5)
    train_dpo(job)
    third = read_log(job.out)[2]
    assert third["update"] == 3
    assert third["loss"] == pytest.approx(expected, abs=1e-5)
    against_base = loss_by_hand(policy, member.load_base(), batch, beta=0.5)
    for wrong in (math.log(2), against_base):
        assert abs(expected - wrong) > 1e-3


@pytest.mark.parametrize("once", [True, False], ids=["prompts once", "prompts twice"])
def test_the_model_sees_the_given_ids_and_no_others(
    once: bool, make_job: MakeJob, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "can_branch", lambda base: once)
    job = make_job(settings={"batch_size": 3, "epochs": 2}, examples=random_examples(7))
    seen: list[tuple[int, ...]] = []
    read = DpoBatch.log_probabilities

    def record(batch: DpoBatch, base: Any) -> Any:
        for block, rows in zip(
            batch.blocks, batch.ids.view(len(batch.blocks), -1, batch.length), strict=True
        ):
            if once:
                whole = [pair.prompt_ids + pair.chosen_ids + pair.rejected_ids for pair in block.pairs]
            else:
                whole = [pair.prompt_ids + pair.chosen_ids for pair in block.pairs]
                whole += [pair.prompt_ids + pair.rejected_ids for pair in block.pairs]
            for ids, row in zip(whole, rows.tolist(), strict=True):
                assert tuple(row[: len(ids)]) == ids and set(row[len(ids) :]) <= {PAD}
                seen.append(ids)
        return read(batch, base)

    monkeypatch.setattr(DpoBatch, "log_probabilities", record)
    train_dpo(job)
    if once:
        given = [example.prompt_ids + example.chosen_ids + example.rejected_ids for example in job.examples]
    else:
        given = [example.prompt_ids + example.chosen_ids for example in job.examples]
        given += [example.prompt_ids + example.rejected_ids for example in job.examples]
    # Both epochs, and the reference before them: its third batch has two pairs of the second epoch.
    assert sorted(set(seen)) == sorted(set(given))
    assert len(seen) == 2 * len(given) + 9 * (1 if once else 2)
    if not once:
        assert sum(ids[-1] == EOS for ids in seen) == len(seen) / 2


@pytest.mark.parametrize("once", [True, False], ids=["prompts once", "prompts twice"])
def test_the_loss_counts_completion_tokens_only(
    once: bool, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpo, "can_branch", lambda base: once)
    job = make_job(examples=random_examples(2))
    first, second = (job.examples[i] for i in training_order(2, 1, job.seed, "DPO"))
    sides = (first.chosen_ids, second.chosen_ids, first.rejected_ids, second.rejected_ids)
    in_rows = (
        [first.chosen_ids, first.rejected_ids, second.chosen_ids, second.rejected_ids] if once else sides
    )
    read, batches = DpoBatch.log_probabilities, []
    monkeypatch.setattr(
        DpoBatch, "log_probabilities", lambda batch, base: batches.append(batch) or read(batch, base)
    )
    train_dpo(job)
    for batch in batches:
        counts = [len(ids) for ids in sides]
        assert batch.row.bincount().tolist() == (
            [counts[0] + counts[2], counts[1] + counts[3]] if once else counts
        )
        assert batch.targets.tolist() == [token for ids in in_rows for token in ids]


def test_only_the_adapter_is_trained(
    make_job: MakeJob, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, bases = dpo.load_base, []
    monkeypatch.setattr(dpo, "load_base", lambda *given: bases.append(load(*given)) or bases[-1])
    train_dpo(make_job())
    [base] = bases
    before = member.load_base().state_dict()
    after = base.state_dict()
    assert after.keys() == before.keys(), "the base is as it was, without a trace of the adapter"
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_pairs_that_are_too_long_or_lack_a_completion_are_dropped_and_counted(make_job: MakeJob) -> None:
    fitting = PreferenceExample((2, 3, 4, 5), (6, 7, 8, EOS), (9,))
    examples = (
        fitting,
        PreferenceExample((2, 3, 4, 5), (6, 7, 8, 9, EOS), (9,)),
        PreferenceExample((2, 3, 4, 5), (6,), (6, 7, 8, 9, EOS)),
        PreferenceExample((2, 3), (), (4,)),
        PreferenceExample((2, 3), (4,), ()),
    )
    job = make_job(settings={"max_length": 8}, examples=examples)
    assert usable_pairs(job) == (fitting,)
    report = train_dpo(job)
    assert (report.pairs, report.dropped, report.steps, report.tokens) == (1, 4, 1, 13)


def test_without_a_usable_pair_the_adapter_is_copied(make_job: MakeJob, member: Member) -> None:
    job = make_job(examples=(PreferenceExample((2, 3), (), (4,)),))
    job.work.mkdir(parents=True)
    report = train_dpo(job)
    assert (report.pairs, report.dropped, report.steps, report.first_loss) == (0, 1, 0, None)
    assert same(job.out, member.adapter)
    assert "no usable pairs" in read_log(job.out)[0]["note"]
    assert not job.work.exists()


def test_a_single_update_already_learns(make_job: MakeJob, member: Member) -> None:
    job = make_job(examples=random_examples(2))
    assert train_dpo(job).steps == 1
    assert not same(job.out, member.adapter)


def test_chosen_responses_gain_on_rejected_ones(make_job: MakeJob, member: Member) -> None:
    examples = tuple(PreferenceExample((2 + i, 3), (5, 6, EOS), (7, 8, EOS)) for i in range(16))
    job = make_job(examples=examples, settings={"epochs": 4, "beta": 0.5})
    report = train_dpo(job)
    assert report.steps == 32
    assert report.mean_loss is not None
    assert report.mean_loss < math.log(2)
    assert read_log(job.out)[-1]["loss"] < 0.5
    before, after = member.load(member.adapter), member.load(job.out)
    for prompt in ((4, 3), (30, 3)):
        gaps = [
            completion_logp(model, prompt, (5, 6, EOS)) - completion_logp(model, prompt, (7, 8, EOS))
            for model in (before, after)
        ]
        assert gaps[1] > gaps[0] + 1
    assert read_log(job.out)[-1]["reward_accuracy"] == 1.0


def test_the_folder_holds_four_files_and_nothing_of_this_machine(make_job: MakeJob, member: Member) -> None:
    job = make_job(examples=random_examples(6))
    told: list[tuple[int, int, float | None]] = []
    report = train_dpo(job, lambda *update: told.append(update))
    names = {"adapter_config.json", "adapter_model.safetensors", "log.jsonl", "report.json"}
    assert {path.name for path in job.out.iterdir()} == names
    assert [path.name for path in job.out.parent.iterdir()] == [job.out.name]
    assert not job.work.exists()
    config = (job.out / "adapter_config.json").read_text()
    assert json.loads(config) == json.loads((member.adapter / "adapter_config.json").read_text())
    assert json.loads(config)["base_model_name_or_path"] == "../../base"
    assert str(member.base.parent) not in config
    log = read_log(job.out)
    assert [record["update"] for record in log] == [1, 2, 3]
    fields = "update loss reward_margin reward_accuracy grad_norm learning_rate seconds"
    assert all(set(record) == set(fields.split()) for record in log)
    assert told == [(record["update"], 3, record["loss"]) for record in log]
    assert (report.first_loss, report.mean_loss) == (
        log[0]["loss"],
        pytest.approx(fmean(line["loss"] for line in log)),
    )
    assert report.tokens == sum(example.tokens for example in job.examples)


def test_equal_jobs_give_equal_adapters_and_another_seed_another(make_job: MakeJob) -> None:
    one, two, other = make_job("one"), make_job("two"), make_job("other", seed=12)
    for job in (one, two, other):
        train_dpo(job)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one.out / name).read_bytes() == (two.out / name).read_bytes()
    assert not same(one.out, other.out)


def test_every_epoch_is_shuffled_anew() -> None:
    order = training_order(50, 2, 3, "DPO")
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert order[:50] != order[50:]
    assert order == training_order(50, 2, 3, "DPO") != training_order(50, 2, 4, "DPO")


@pytest.mark.parametrize("change", [{"accumulation": 2, "batch_size": 1}, {"gradient_checkpointing": True}])
def test_saving_memory_changes_nothing_but_rounding(make_job: MakeJob, change: dict[str, Any]) -> None:
    plain = make_job("plain", examples=random_examples(8))
    saving = make_job("saving", settings=change, examples=plain.examples)
    assert train_dpo(plain).steps == train_dpo(saving).steps == 4
    losses = [[record["loss"] for record in read_log(job.out)] for job in (plain, saving)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0, 0.5, 1, 1, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [0, 0.5] + [0.5 + 0.5 * math.cos(math.pi * i / 6) for i in range(6)]),
    ],
)
def test_the_schedule_warms_up_and_decays(make_job: MakeJob, schedule: str, rates: list[float]) -> None:
    job = make_job(settings={"schedule": schedule, "warmup": 0.25})
    train_dpo(job)
    used = [record["learning_rate"] / job.settings.learning_rate for record in read_log(job.out)]
    assert used == pytest.approx(rates, abs=1e-6)


def test_a_loss_that_is_not_a_number_ends_the_job(make_job: MakeJob) -> None:
    job = make_job(settings={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(SpartaError, match=r"tiny diverged.*update 2 of 8"):
        train_dpo(job)
    assert not job.out.exists()


def test_a_gradient_that_is_not_a_number_ends_the_job(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm = Learner.gradient_norm
    monkeypatch.setattr(Learner, "gradient_norm", lambda learner: norm(learner) * math.nan)
    job = make_job(examples=random_examples(2))
    with pytest.raises(SpartaError, match=r"its gradient is nan in update 1 of 1"):
        train_dpo(job)
    assert not job.out.exists()


def test_the_adapter_keeps_full_precision_on_a_base_of_half(make_job: MakeJob, member: Member) -> None:
    job = make_job(dtype="bfloat16", settings={"learning_rate": 1e-6})
    assert train_dpo(job).first_loss == pytest.approx(math.log(2), abs=1e-4)
    before, after = tensors(member.adapter), tensors(job.out)
    assert all(value.dtype == torch.float32 for value in after.values())
    changed = max((after[name] - before[name]).abs().max().item() for name in before)
    assert 0 < changed < 1e-4


def test_memory_that_does_not_suffice_is_named_with_the_remedy(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dpo, "load_base", fail)
    with pytest.raises(
        SpartaError, match=r"tiny.*dpo\.batch_size.*dpo\.gradient_checkpointing.*per_training\.$"
    ):
        train_dpo(make_job())
    with pytest.raises(SpartaError, match=r"to true, or lower dpo\.max_length\.$"):
        train_dpo(make_job(quantize="nf4"))


def test_what_is_missing_or_does_not_fit_is_named(make_job: MakeJob, member: Member, tmp_path: Path) -> None:
    job = make_job()
    with pytest.raises(SpartaError, match=r"nowhere.*adapter_config\.json is missing"):
        train_dpo(replace(job, adapter=tmp_path / "nowhere"))
    with pytest.raises(SpartaError, match="no_base"):
        train_dpo(replace(job, base=str(tmp_path / "no_base")))
    if not torch.cuda.is_available():
        with pytest.raises(SpartaError, match="PyTorch sees no GPU"):
            train_dpo(replace(job, device="cuda"))
    with pytest.raises(SpartaError, match="token 48"):
        train_dpo(replace(job, examples=(PreferenceExample((2,), (48,), (3,)),)))
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((member.adapter / "adapter_config.json").read_text())
    for change in ({"r": 8}, {"target_modules": ["q_proj"]}):
        (other / "adapter_config.json").write_text(json.dumps(config | change))
        (other / "adapter_model.safetensors").write_bytes(
            (member.adapter / "adapter_model.safetensors").read_bytes()
        )
        with pytest.raises(SpartaError, match="does not fit its base"):
            train_dpo(replace(job, adapter=other))
    assert not job.out.exists()


def test_a_base_in_a_pickle_is_not_read(make_job: MakeJob, member: Member, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(member.base, pickled)
    (pickled / "model.safetensors").rename(pickled / "other.safetensors")
    torch.save(load_file(pickled / "other.safetensors"), pickled / "pytorch_model.bin")
    with pytest.raises(SpartaError, match="could not be loaded"):
        train_dpo(make_job(base=str(pickled)))


def test_an_adapter_that_is_there_is_left_alone(make_job: MakeJob) -> None:
    job = make_job()
    job.out.mkdir(parents=True)
    with pytest.raises(SpartaError, match="already there"):
        train_dpo(job)
    assert list(job.out.iterdir()) == []
