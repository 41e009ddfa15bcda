"""Experts learn the answers of their rows: right loss, right tokens, right files."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from support import real_data, tiny_models
from support.tiny_adapters import EOS, VOCABULARY, Member, fresh_folder, random_rows, read_log, same, tensors
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from sparta.chat.renderer import Renderer
from sparta.chat.sft_examples import sft_examples
from sparta.chat.template import Message
from sparta.engines.factory import loads_so_far
from sparta.engines.tokenizers import load_renderer
from sparta.errors import SpartaError
from sparta.recipes.pool import Lora
from sparta.training import packing, sft
from sparta.training.adapter_folder import read_starting_adapter
from sparta.training.dpo import train_dpo
from sparta.training.factory import train_expert
from sparta.training.job import SftExample, SftJob, TrainingJob, usable_rows
from sparta.training.loading import BaseInMemory
from sparta.training.packing import keeps_rows_apart, pays
from sparta.training.runner import training_order
from sparta.training.sft import make_trainer, train_sft

MakeExpert = Callable[..., SftJob]
LONG = SftExample((2, 3, 4, 5, 6, 7, 8, 9, EOS), (*[False] * 5, *[True] * 4))
UNTAUGHT = SftExample((2, 3, 4), (True, False, False))


def trainer_of(job: SftJob) -> Any:
    adapter = read_starting_adapter(job.model, job.adapter)
    return make_trainer(job, adapter, job.examples, "cpu", "float32", lambda *_: None, BaseInMemory())


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_log(out)]


def loss_by_hand(model: Any, rows: list[SftExample]) -> float:
    """-log p of the taught tokens, their mean over all rows, one row at a time and without padding."""
    nats: list[float] = []
    for row in rows:
        ids = torch.tensor([row.token_ids])
        with torch.no_grad():
            logp = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        nats += logp[torch.tensor(row.is_target[1:])].neg().tolist()
    return fmean(nats)


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_is_the_mean_over_the_taught_tokens_of_an_update(
    make_expert: MakeExpert, member: Member, without_dropout: Path, packing: bool
) -> None:
    settings = {"batch_size": 3, "accumulation": 2, "packing": packing, "learning_rate": 1e-9}
    job = make_expert(settings=settings, adapter=without_dropout)
    train_sft(job)
    order = training_order(len(job.examples), 1, job.seed, "SFT")
    updates = [[job.examples[i] for i in order[at : at + 6]] for at in range(0, len(order), 6)]
    model = member.load(without_dropout)
    assert [len(rows) for rows in updates] == [6, 6, 4]
    assert losses(job.out) == pytest.approx([loss_by_hand(model, rows) for rows in updates], abs=1e-5)


def test_the_loss_of_a_mixture_of_experts_is_that_of_its_answers_alone(
    make_expert: MakeExpert, make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    config = Qwen2MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        router_aux_loss_coef=1.0,
    )
    torch.manual_seed(0)
    base = Qwen2MoeForCausalLM(config).eval()
    base.save_pretrained(tmp_path / "mixture")
    start = fresh_folder(tmp_path / "start", tmp_path / "mixture", Lora(rank=4))
    settings = {"batch_size": 16, "learning_rate": 1e-9}
    expert = train_sft(make_expert("expert", settings, base=str(tmp_path / "mixture"), adapter=start))
    assert expert.first_loss == pytest.approx(loss_by_hand(base, list(random_rows(16))), abs=1e-5)
    preferred = train_dpo(make_job("dpo", settings, base=str(tmp_path / "mixture"), adapter=start))
    assert preferred.first_loss == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8, "accumulation": 1},
        {"batch_size": 1, "accumulation": 8},
        {"batch_size": 8, "accumulation": 1, "packing": True},
        {"packing": True},
        {"gradient_checkpointing": False},
        {"gradient_checkpointing": False, "packing": True},
    ],
)
def test_how_rows_are_spread_over_steps_changes_nothing_but_rounding(
    make_expert: MakeExpert, without_dropout: Path, change: dict[str, Any]
) -> None:
    settings = {"batch_size": 2, "accumulation": 4, "packing": False}
    one = make_expert("one", settings, adapter=without_dropout)
    other = make_expert("other", settings | change, adapter=without_dropout)
    for job in (one, other):
        assert train_sft(job).steps == 2
    for left, right in zip(read_log(one.out), read_log(other.out), strict=True):
        for what in ("loss", "grad_norm"):
            assert left[what] == pytest.approx(right[what], abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_have_the_loss_and_gradients_of_padded_ones(
    make_expert: MakeExpert, without_dropout: Path, attention: str
) -> None:
    found = []
    for packed in (False, True):
        job = make_expert(settings={"batch_size": 8, "packing": packed}, adapter=without_dropout)
        trainer = trainer_of(job)
        trainer.model.get_base_model().set_attn_implementation(attention)
        batch = next(iter(trainer.get_train_dataloader()))
        assert ("attention_mask" in batch) is not packed
        assert (batch["input_ids"].shape[0] == 1) is packed
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
        found.append((loss.item(), gradients))
    (padded_loss, padded), (packed_loss, together) = found
    assert packed_loss == pytest.approx(padded_loss, abs=1e-6)
    assert padded.keys() == together.keys() and len(padded) == 12
    for name, gradient in padded.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(gradient, together[name], atol=1e-6), name


def test_labels_are_the_taught_tokens_and_no_others(make_expert: MakeExpert) -> None:
    for packed in (False, True):
        job = make_expert(settings={"batch_size": 16, "packing": packed})
        [batch] = trainer_of(job).get_train_dataloader()
        order = training_order(len(job.examples), 1, job.seed, "SFT")
        rows = [job.examples[i] for i in order]
        wanted = [[token for token, t in zip(row.token_ids, row.is_target, strict=True) if t] for row in rows]
        taught = batch["labels"] != -100
        assert torch.equal(batch["labels"][taught], batch["input_ids"][taught])
        assert batch["labels"][taught].tolist() == list(chain(*wanted))
        assert taught.sum() == sum(row.targets for row in rows)


def test_packing_pays_where_filling_costs_more_than_masked_pairs() -> None:
    small, large = (1e6, 512.0), (7.6e9, 1e5)
    mixed = [[100, 300, 200, 700], [150, 900, 80, 60]]
    assert pays(mixed, *small) and pays(mixed, *large)
    assert not pays([[300] * 4, [200] * 4], *large)
    assert not pays([[500], [90]], *large)
    long = [[2000, 1000, 1500, 1800]]
    assert pays(long, *large) and not pays(long, *small)


def test_null_packs_where_it_pays(make_expert: MakeExpert, monkeypatch: pytest.MonkeyPatch) -> None:
    for row, packed in ((random_rows(16), True), ((random_rows(1)[0],) * 16, False)):
        [batch, *_] = trainer_of(make_expert(examples=row)).get_train_dataloader()
        assert ("position_ids" in batch) is packed
    monkeypatch.setattr(packing, "keeps_rows_apart", lambda _: False)
    [batch, *_] = trainer_of(make_expert()).get_train_dataloader()
    assert "position_ids" not in batch
    with pytest.raises(SpartaError, match=r"mixes rows .* set pool\.sft\.packing to false or null"):
        trainer_of(make_expert(settings={"packing": True}))


def test_a_base_whose_rows_see_each_other_is_found_out(member: Member) -> None:
    base = member.load_base()
    assert keeps_rows_apart(base)
    base.set_attn_implementation("eager")
    assert keeps_rows_apart(base) and not base.training
    state = MambaConfig(vocab_size=16, hidden_size=8, state_size=4, num_hidden_layers=1)
    assert not keeps_rows_apart(MambaForCausalLM(state).train())
    no_positions = BloomConfig(vocab_size=16, hidden_size=8, n_layer=1, n_head=2)
    assert not keeps_rows_apart(BloomForCausalLM(no_positions))


def test_rows_that_are_too_long_or_teach_nothing_are_dropped_and_counted(make_expert: MakeExpert) -> None:
    fitting = SftExample(LONG.token_ids[1:], LONG.is_target[1:])
    job = make_expert(settings={"max_length": 8}, examples=(LONG, fitting, UNTAUGHT), epochs=3)
    assert usable_rows(job) == (fitting,)
    report = train_sft(job)
    assert (report.used, report.dropped, report.steps) == (1, 2, 2)
    assert (report.tokens, report.taught) == (24, 12)


def test_without_a_usable_row_there_is_no_expert(make_expert: MakeExpert) -> None:
    job = make_expert(settings={"max_length": 8}, examples=(LONG, UNTAUGHT))
    for engine in ("hf", "scripted"):
        with pytest.raises(SpartaError, match=r"tiny could.* 2 rows .* 1 are longer .* 8 tokens, and 1 hold"):
            train_expert(job, engine)
        with pytest.raises(SpartaError, match="of the 0 rows"):
            train_expert(replace(job, examples=()), engine)
    assert not job.out.exists()


def test_only_the_adapter_is_trained_and_its_dropout_acts(
    make_expert: MakeExpert, without_dropout: Path
) -> None:
    job = make_expert("with")
    trainer = trainer_of(job)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all("lora_" in name for name in changed)
    rates = {module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.2}
    assert trainer.model.config.attention_dropout == 0.0
    again, other = make_expert("again"), make_expert("other", adapter=without_dropout)
    for made in (job, again, other):
        train_sft(made)
    assert same(job.out, again.out)
    assert not same(job.out, other.out)


def test_the_schedule_and_the_epochs_are_those_of_the_paper(make_expert: MakeExpert) -> None:
    job = make_expert(settings={"accumulation": 4}, examples=random_rows(16), epochs=5)
    report = train_sft(job)
    assert report.steps == 10
    assert report.tokens == 5 * sum(row.length for row in job.examples)
    used = [record["learning_rate"] / job.settings.learning_rate for record in read_log(job.out)]
    assert used == pytest.approx([0.0] + [0.5 + 0.5 * math.cos(math.pi * i / 9) for i in range(9)], abs=1e-6)


def test_the_folder_holds_four_files_and_the_log_a_record_an_update(make_expert: MakeExpert) -> None:
    job = make_expert(epochs=2)
    told: list[tuple[int, int, float | None]] = []
    report = train_expert(job, "hf", lambda *update: told.append(update))
    names = {"adapter_config.json", "adapter_model.safetensors", "log.jsonl", "report.json"}
    assert {path.name for path in job.out.iterdir()} == names
    assert not job.work.exists()
    log = read_log(job.out)
    assert [record["update"] for record in log] == list(range(1, 17))
    fields = "update loss token_accuracy grad_norm learning_rate seconds"
    assert all(set(record) == set(fields.split()) for record in log)
    assert told == [(record["update"], 16, record["loss"]) for record in log]
    assert (report.first_loss, report.last_loss) == (log[0]["loss"], log[-1]["loss"])
    assert report.mean_loss == pytest.approx(fmean(losses(job.out)))
    assert train_expert(job, "hf") == report
    assert tensors(job.out).keys() == tensors(job.adapter).keys()


def test_what_goes_wrong_is_told_in_terms_of_the_recipe(
    make_expert: MakeExpert, member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_expert()
    with pytest.raises(SpartaError, match=r"SFT of tiny diverged.*Lower pool\.sft\.learning_rate"):
        train_sft(make_expert(settings={"learning_rate": 1e30, "warmup": 0.0}))
    with pytest.raises(SpartaError, match="A row for tiny contains token 48"):
        train_sft(replace(job, examples=(SftExample((2, 48), (False, True)),)))
    head = fresh_folder(tmp_path / "head", member.base, Lora(targets=("lm_head",)))
    with pytest.raises(SpartaError, match=r"output layer .* pool\.lora\.targets"):
        train_sft(replace(job, adapter=head))

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sft, "make_trainer", fail)
    with pytest.raises(
        SpartaError,
        match=r"SFT of tiny ran out of GPU memory \(pool\.sft\.batch_size 2, longest row 2\d tokens",
    ):
        train_sft(job)
    assert not job.out.exists()


def code_alpaca(n: int) -> list[tuple[str, str]]:
    rows = json.loads((real_data.RAW / "sft_code_alpaca/raw/code_alpaca_2k.json").read_text())
    return [(f"{row['instruction']}\n\n{row['input']}".strip(), row["output"]) for row in rows[:n]]


def dolly(n: int) -> list[tuple[str, str]]:
    rows = json.loads((real_data.RAW / "sft_dolly_standin/raw/dolly_3k.json").read_text())
    return [(f"{row['instruction']}\n\n{row['input']}".strip(), row["output"]) for row in rows[:n]]


def chain_of_thought(n: int) -> list[tuple[str, str]]:
    with open(real_data.RAW / "sft_cot/raw/strategyqa_train.first285.tsv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(question, f"{rationale}\n{answer}") for question, answer, rationale in rows[:n]]


def scifact(n: int) -> list[tuple[str, str]]:
    rows = json.loads((real_data.RAW / "sft_science/raw/scifact.json").read_text())["dev"]
    return [(row["question"], f"{row['answer']}. {row['choices'][row['answer']]}") for row in rows[:n]]


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.make_base(tmp_path_factory.mktemp("real") / "base", context=4096)


@real_data.needs_raw_data
@pytest.mark.parametrize("subset", [code_alpaca, dolly, chain_of_thought, scifact])
def test_an_expert_learns_from_real_rows(
    subset: Callable[[int], list[tuple[str, str]]], small_base: Path, tmp_path: Path, make_expert: MakeExpert
) -> None:
    renderer = load_renderer(str(small_base), 4096, trust_remote_code=False)
    pairs = subset(16)
    rows = tuple(row_of(renderer, question, answer) for question, answer in pairs)
    job = make_expert(
        settings={"batch_size": 4, "accumulation": 2, "max_length": 2048},
        base=str(small_base),
        adapter=fresh_folder(tmp_path / "start", small_base, Lora(dropout=0.05)),
        examples=rows,
        epochs=4,
    )
    used = usable_rows(job)
    trainer = trainer_of(replace(job, examples=used, epochs=1))
    learnt: list[str] = []
    for batch in trainer.get_train_dataloader():
        for labels in batch["labels"]:
            kept = renderer.tokenizer.decode(labels[labels != -100], skip_special_tokens=False)
            learnt += [part for part in kept.split("<|im_end|>") if part]
    answers = {row: answer for row, (_, answer) in zip(rows, pairs, strict=True)}
    assert sorted(learnt) == sorted(answers[row] for row in used)
    report = train_sft(job)
    assert report.used + report.dropped == 16 and report.used >= 12
    first, last = losses(job.out)[0], losses(job.out)[-1]
    assert (report.first_loss, report.last_loss) == (first, last)
    assert last < 0.8 * first


def row_of(renderer: Renderer, question: str, answer: str) -> SftExample:
    [row] = sft_examples(renderer, [Message("user", question), Message("assistant", answer)])
    return SftExample(*row)


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_checkpointing": True}, {"packing": True}], ids=["", "checkpointing", "packed"]
)
def test_experts_of_one_base_load_it_once_and_come_out_as_they_would_alone(
    settings: dict[str, Any], make_expert: MakeExpert, member: Member
) -> None:
    def jobs(name: str) -> list[SftJob]:
        return [
            make_expert(f"{name}-{seed}", settings, seed=seed, examples=random_rows(12, seed))
            for seed in range(3)
        ]

    before = loads_so_far().bases
    with BaseInMemory() as base:
        for job in jobs("together"):
            train_expert(job, "hf", base=base)
        assert loads_so_far().bases - before == 1
        last = base.of(jobs("other")[0], "cpu", "float32")
        ids = torch.tensor([[2, 3, 4, 5]])
        with torch.no_grad():
            assert torch.equal(last.eval()(ids).logits, member.load_base()(ids).logits), (
                "the base is as it was"
            )
    for alone, together in zip(jobs("alone"), jobs("together"), strict=True):
        train_expert(alone, "hf")
        assert same(alone.out, together.out)
        assert losses(alone.out) == losses(together.out)
    assert loads_so_far().bases - before == 4


def test_an_expert_of_another_base_gets_its_own(
    make_expert: MakeExpert, member: Member, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(member.base, other)
    before = loads_so_far().bases
    with BaseInMemory() as base:
        for number, folder in enumerate((member.base, other, other)):
            train_expert(make_expert(str(number), base=str(folder)), "hf", base=base)
    assert loads_so_far().bases - before == 2
