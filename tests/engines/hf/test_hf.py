"""HfEngine on a tiny random model: the same tokens as plain transformers and PEFT, in any batch."""

import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.engine_contract import (
    GREEDY,
    QUESTIONS,
    SAMPLED,
    answers,
    everyone,
    labels,
    ref,
    reference_logs,
    request,
    settings,
    weighing,
)
from support.quantised_bases import make_awq

from sparta import toy
from sparta.chat.template import Message
from sparta.engines.base import Completion, Inbox, Request, Sampling
from sparta.engines.hf import likelihood
from sparta.engines.hf.engine import ROUND, HfEngine
from sparta.errors import SpartaError


@pytest.fixture(scope="module")
def engine() -> Iterator[HfEngine]:
    engine = HfEngine(settings())
    yield engine
    engine.close()


def plain_model(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return (model if adapter is None else PeftModel.from_pretrained(model, str(adapter))).eval()


def plain_greedy(model: Any, ids: tuple[int, ...], new: int) -> tuple[int, ...]:
    with torch.inference_mode():
        out = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=new,
            do_sample=False,
        )
    return tuple(out[0, len(ids) :].tolist())


def test_greedy_answers_are_those_of_a_freshly_loaded_model(
    engine: HfEngine, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    models = everyone(tiny_base, tiny_adapters)
    requests = [request(engine, model, question) for model in models for question in QUESTIONS]
    made = answers(engine, requests)
    for model in models:
        plain = plain_model(tiny_base, model.adapter)
        for asked in (asked for asked in requests if asked.model == model):
            assert asked.prompt.token_ids is not None
            expected = plain_greedy(plain, asked.prompt.token_ids, GREEDY.max_new_tokens)
            assert made[asked.key].token_ids == expected
    texts = {model.name: tuple(made[f"{model.name}/{q}/0"].token_ids for q in QUESTIONS) for model in models}
    assert len(set(texts.values())) == len(models), "adapters must make a difference"


def test_the_attention_that_the_recipe_names_gives_the_same_answers(
    engine: HfEngine, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    other = HfEngine(settings(attention="eager"))
    models = everyone(tiny_base, tiny_adapters)
    asked = [request(engine, model, question) for model in models for question in QUESTIONS]
    expected = answers(engine, asked)
    assert answers(other, asked) == expected
    used = [one._weights._bare.config._attn_implementation for one in (engine, other)]
    assert used == ["sdpa", "eager"]
    other.close()


def test_a_base_that_transformers_cannot_read_is_refused_by_name(tmp_path: Path) -> None:
    base = make_awq(tmp_path / "awq", toy.BASE)
    engine = HfEngine(settings())
    with pytest.raises(
        SpartaError, match=r"awq is quantised .awq in its config.json.*engine hf cannot read.*vllm"
    ):
        answers(engine, [request(engine, ref("bare", base, None), "1")])


def test_what_attention_needs_is_asked_for_before_anything_is_loaded(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would look for it on the hub."""
    monkeypatch.setattr("sparta.engines.load_options.find_spec", lambda name: None)
    engine = HfEngine(settings(attention="flash_attention_2", dtype="bfloat16"))
    with pytest.raises(
        SpartaError, match=r"needs the package flash-attn, and that is not installed here.*sdpa"
    ):
        answers(engine, [request(engine, ref("bare", tiny_base, None), "1")])
    assert engine.loads == 0


def test_one_base_with_many_adapters_is_loaded_once(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    engine = HfEngine(settings())
    models = everyone(tiny_base, tiny_adapters)
    assert engine.loads == 0
    answers(engine, [request(engine, model, question) for question in QUESTIONS for model in models])
    answers(engine, [request(engine, model, "again") for model in reversed(models)])
    assert engine.loads == 1
    engine.close()
    engine.close()


def test_each_of_two_bases_is_loaded_once_a_run(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    engine = HfEngine(settings())
    other = ref("other", tiny_models.make_base(tmp_path / "other", seed=5), None)
    ada = ref("ada", tiny_base, tiny_adapters["ada"])
    asked = [request(engine, model, question) for model in (ada, other) for question in QUESTIONS]
    made = answers(engine, asked)
    assert engine.loads == 2
    assert made == answers(engine, reversed(asked))
    assert engine.loads == 3, "the base in memory comes first"


def test_sampled_text_depends_on_the_request_alone(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    wide, narrow = HfEngine(settings()), HfEngine(settings(batch_tokens=150))
    models = everyone(tiny_base, tiny_adapters)
    asked = [
        request(wide, model, question, SAMPLED, seed)
        for model in models
        for question in QUESTIONS
        for seed in range(3)
    ]
    made = answers(wide, asked)
    assert made == answers(wide, asked)
    shuffled = random.Random(1).sample(asked, len(asked))
    assert made == answers(narrow, shuffled)
    assert made == {key: done for one in asked[::7] for key, done in answers(narrow, [one]).items()} | made
    for seed in (1, 2):
        again = [replace(one, seed=one.seed + 100 * seed) for one in asked]
        assert sum(done == made[key] for key, done in answers(wide, again).items()) < len(asked) / 4


def test_results_stream_batch_by_batch(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    engine = HfEngine(settings(batch_tokens=1))
    stream = engine.run(Inbox(request(engine, model, "x") for model in everyone(tiny_base, tiny_adapters)))
    first = next(stream)
    assert first.seconds > 0
    held = engine._weights._adapters
    assert len(held) == 1, "only what the first batch needed is loaded"
    assert len(list(stream)) == 3


def test_a_new_version_replaces_the_old_one(tmp_path: Path, tiny_base: Path) -> None:
    engine = HfEngine(settings())
    old_folder = tiny_models.make_adapter(tmp_path / "old", tiny_base, seed=11)
    new_folder = tiny_models.make_adapter(tmp_path / "new", tiny_base, seed=12)
    old, new = ref("ada", tiny_base, old_folder, "1"), ref("ada", tiny_base, new_folder, "2")
    before = answers(engine, [request(engine, old, question) for question in QUESTIONS])
    after = answers(engine, [request(engine, new, question) for question in QUESTIONS])
    assert before != after
    fresh = HfEngine(settings())
    assert after == answers(fresh, [request(fresh, new, question) for question in QUESTIONS])
    assert len(engine._weights._peft.peft_config) == 1
    assert before == answers(engine, [request(engine, old, question) for question in QUESTIONS])
    assert engine.loads == 1


def test_a_version_takes_the_place_of_one_that_computes_alike_and_of_no_other(
    tmp_path: Path, tiny_base: Path
) -> None:
    engine = HfEngine(settings())
    shapes = {"first": (11, 4), "alike": (12, 4), "wider": (13, 8), "stronger": (12, 4)}
    slots, made = [], {}
    for name, (seed, rank) in shapes.items():
        folder = tiny_models.make_adapter(tmp_path / name, tiny_base, seed=seed, rank=rank)
        if name == "stronger":
            config = folder / "adapter_config.json"
            config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 64}))
        model = ref("ada", tiny_base, folder, name)
        made[name] = [
            one.token_ids for one in answers(engine, [request(engine, model, q) for q in QUESTIONS]).values()
        ]
        slots.append(next(iter(engine._weights._peft.peft_config)))
        alone = HfEngine(settings())
        assert made[name] == [
            one.token_ids for one in answers(alone, [request(alone, model, q) for q in QUESTIONS]).values()
        ]
    assert slots[0] == slots[1] and len(set(slots)) == 3
    assert made["alike"] != made["stronger"]


def test_copies_share_one_adapter_until_their_weights_differ(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    engine = HfEngine(settings())
    names = ("ada", "ada-2", "ada-3")
    folder = Path(shutil.copytree(tiny_adapters["ada"], tmp_path / "shared"))
    copies = [ref(name, tiny_base, folder) for name in names]
    answers(engine, [request(engine, copies[0], "1")])
    # It is in memory: nothing is there to be read for another copy.
    shutil.rmtree(folder)
    asked = [request(engine, copy, question) for question in QUESTIONS for copy in copies]
    made = answers(engine, asked)
    assert len(engine._weights._peft.peft_config) == 1
    assert made.keys() == {one.key for one in asked}
    for question in QUESTIONS:
        assert len({made[f"{name}/{question}/0"].token_ids for name in names}) == 1
    drawn = [
        request(engine, copy, question, SAMPLED, seed)
        for question in QUESTIONS
        for seed, copy in enumerate(copies)
    ]
    sampled = answers(engine, drawn)
    assert len({done.token_ids for done in sampled.values()}) > len(copies)
    assert len(engine._weights._peft.peft_config) == 1

    learned = ref("ada", tiny_base, tiny_models.make_adapter(tmp_path / "ada", tiny_base, seed=21), "1")
    after = answers(
        engine, [request(engine, model, q) for q in QUESTIONS for model in (learned, *copies[1:])]
    )
    assert any(after[f"ada/{q}/0"].token_ids != made[f"ada/{q}/0"].token_ids for q in QUESTIONS)
    for name in names[1:]:
        assert all(after[f"{name}/{q}/0"] == made[f"{name}/{q}/0"] for q in QUESTIONS)
    held = []
    for name in names[1:]:
        answers(engine, [request(engine, ref(name, tiny_base, tiny_adapters["bea"], "1"), "1")])
        held.append(len(engine._weights._peft.peft_config))
    assert held == [3, 2], "what was shared goes with the last that has it"
    assert engine.loads == 1


def test_new_weights_in_the_same_folder_are_read_again(tmp_path: Path, tiny_base: Path) -> None:
    engine = HfEngine(settings())
    folder = tiny_models.make_adapter(tmp_path / "ada", tiny_base, seed=11)
    before = answers(engine, [request(engine, ref("ada", tiny_base, folder, "1"), q) for q in QUESTIONS])
    shutil.rmtree(folder)
    tiny_models.make_adapter(folder, tiny_base, seed=12)
    assert before != answers(
        engine, [request(engine, ref("ada", tiny_base, folder, "2"), q) for q in QUESTIONS]
    )


def test_a_full_model_with_new_weights_is_loaded_again(tmp_path: Path) -> None:
    engine = HfEngine(settings())
    base = tiny_models.make_base(tmp_path / "base", seed=1)
    before = answers(engine, [request(engine, ref("full", base, None, "1"), q) for q in QUESTIONS])
    tiny_models.make_base(base, seed=2)
    assert before != answers(engine, [request(engine, ref("full", base, None, "2"), q) for q in QUESTIONS])
    assert engine.loads == 2


def test_a_full_model_under_several_names_is_loaded_once_a_version(tmp_path: Path) -> None:
    engine = HfEngine(settings())
    base = tiny_models.make_base(tmp_path / "base", seed=1)
    one, two = ref("one", base, None, "1"), ref("two", base, None, "1")
    made = answers(engine, [request(engine, model, q) for q in QUESTIONS for model in (one, two)])
    assert engine.loads == 1
    assert all(made[f"one/{q}/0"].token_ids == made[f"two/{q}/0"].token_ids for q in QUESTIONS)
    tiny_models.make_base(base, seed=2)
    later = replace(two, version="2")
    changed = answers(engine, [request(engine, later, q) for q in QUESTIONS])
    assert engine.loads == 2
    assert any(changed[f"two/{q}/0"] != made[f"two/{q}/0"] for q in QUESTIONS)


def test_label_probabilities_are_the_softmax_of_a_plain_forward_pass(
    engine: HfEngine, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    tokens, prefix = tuple(range(20, 30)), (5, 6, 7)
    asked = [
        replace(request(engine, model, question), labels=labels(*tokens), prefix=prefix)
        for model in everyone(tiny_base, tiny_adapters)
        for question in QUESTIONS
    ]
    made = answers(engine, asked)
    for one in asked:
        assert one.prompt.token_ids is not None
        ids = torch.tensor([one.prompt.token_ids + prefix])
        with torch.inference_mode():
            logits = plain_model(tiny_base, one.model.adapter)(input_ids=ids).logits[0, -1, list(tokens)]
        done = made[one.key]
        assert done.label_probs == pytest.approx(logits.float().softmax(-1).tolist(), abs=1e-5)
        assert (done.text, done.token_ids, done.prompt_tokens) == ("", (), len(one.prompt.token_ids))


CHOICES = ("a", " the answer is 4", "no", " yes, it is; and here is " + "why " * 9)


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_log_likelihoods_are_those_of_a_plain_forward_pass(
    engine: HfEngine,
    tiny_base: Path,
    tiny_adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny_models, "TARGETS", [*tiny_models.TARGETS, "lm_head"])
    head = ref("head", tiny_base, tiny_models.make_adapter(tmp_path / "head", tiny_base, seed=9))
    asked = [
        weighing(engine, model, question, text, plain)
        for model in (*everyone(tiny_base, tiny_adapters), head)
        for question in QUESTIONS
        for text in CHOICES
        for plain in (True, False)
    ]
    asked += [replace(asked[1], key="prefixed", prefix=(5, 6, 7))]
    made, expected = answers(engine, asked), reference_logs(asked)
    for one in asked:
        done = made[one.key]
        assert done.log_likelihood == pytest.approx(expected[one.key], abs=1e-4)
        whole = Completion(one.key, "", (), len(one.prompt.token_ids or ()), "stop", 0.0)
        assert replace(done, log_likelihood=0.0) == whole
    assert len({round(done.log_likelihood, 3) for done in made.values()}) > 0.9 * len(asked)
    narrow = answers(HfEngine(settings(batch_tokens=1)), asked[::5])
    for key, done in narrow.items():
        assert done.log_likelihood == pytest.approx(expected[key], abs=1e-4)


def test_log_likelihoods_and_texts_come_from_one_run(
    engine: HfEngine, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    models = everyone(tiny_base, tiny_adapters)
    written = [request(engine, model, question) for model in models for question in QUESTIONS]
    judged = [replace(one, key=f"{one.key}/labels", labels=labels(20, 21)) for one in written]
    asked = [weighing(engine, model, question, "yes", False) for model in models for question in QUESTIONS]
    together = answers(engine, [*written, *judged, *asked])
    apart = answers(engine, written) | answers(engine, judged) | answers(engine, asked)
    assert together == apart


def test_a_continuation_may_fill_the_context_and_no_more(tiny_base: Path) -> None:
    engine = HfEngine(settings(context_length=64))
    one = weighing(engine, ref("bare", tiny_base, None), "x", "y", True)
    room = engine.renderer(one.model).room(one.prompt)
    full = replace(one, continuation=(65,) * room)
    (done,) = answers(engine, [full]).values()
    assert done.finish_reason == "stop"
    assert done.log_likelihood == pytest.approx(reference_logs([full])[full.key], abs=1e-4)
    for over in (replace(one, continuation=(65,) * (room + 1)), replace(full, prefix=(65,))):
        (done,) = answers(engine, [over]).values()
        assert (done.finish_reason, done.log_likelihood) == ("prompt_too_long", 0.0)


def test_batch_tokens_bounds_the_logits_of_continuations(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a vocabulary of 152,000, where logits take most of the memory of a token."""
    monkeypatch.setattr(likelihood, "_LOGITS_A_TOKEN", 16)
    engine = HfEngine(settings(batch_tokens=2000))
    model = ref("bare", tiny_base, None)
    asked = [weighing(engine, model, question, text, True) for question in QUESTIONS for text in CHOICES]
    engine._weights.hold(model)
    shapes: list[tuple[int, ...]] = []
    engine._weights._bare.register_forward_hook(lambda *done: shapes.append(tuple(done[2].logits.shape)))
    made, expected = answers(engine, asked), reference_logs(asked)
    assert all(made[key].log_likelihood == pytest.approx(log, abs=1e-4) for key, log in expected.items())
    longest = max(len(one.continuation) for one in asked)
    assert {kept for _, kept, _ in shapes} <= set(range(1, longest + 1))
    assert len(shapes) > 1 and max(rows for rows, _, _ in shapes) > 1
    assert all(rows * kept * wide <= 2000 * 16 for rows, kept, wide in shapes if rows > 1)
    assert likelihood.logits_in_tokens(1, 16) == 1
    assert likelihood.logits_in_tokens(10, 17) == 11


def test_a_pattern_constrains_every_completion(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    """Random weights would not match unconstrained. Narrow and wide batches give the same."""
    wide, narrow = HfEngine(settings()), HfEngine(settings(batch_tokens=1))
    long = replace(SAMPLED, max_new_tokens=40)
    form = r'[a-z]{1,6}\n\{"score": ?(?:10|[1-9])\}'
    asked = [
        replace(request(wide, model, question, long, seed), pattern=form)
        for model in everyone(tiny_base, tiny_adapters)
        for question in QUESTIONS
        for seed in range(3)
    ]
    made = answers(wide, asked)
    assert made == answers(narrow, asked)
    end = wide.renderer(asked[0].model).tokenizer.eos_token_id
    for done in made.values():
        assert re.fullmatch(form, done.text), done.text
        assert (done.finish_reason, done.token_ids[-1]) == ("stop", end)
        assert end not in done.token_ids[:-1]
    assert len({done.text for done in made.values()}) > len(made) / 2
    cut = answers(wide, [replace(asked[0], sampling=replace(long, max_new_tokens=3))])[asked[0].key]
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 3)
    (free,) = answers(wide, [replace(asked[0], pattern="")]).values()
    assert not re.fullmatch(form, free.text)


def test_follow_up_requests_are_answered_before_the_rest(tiny_base: Path) -> None:
    engine = HfEngine(settings())
    model = ref("bare", tiny_base, None)
    inbox = Inbox(request(engine, model, str(number)) for number in range(ROUND + 5))
    order = []
    for done in engine.run(inbox):
        if not order:
            inbox.put(request(engine, model, "put in"))
        order.append(done.key)
    assert len(order) == len(set(order)) == ROUND + 6
    assert "bare/put in/0" in order[ROUND : ROUND + 6], "it came with the second round"


def test_each_base_is_loaded_once_where_its_requests_follow_each_other(tmp_path: Path) -> None:
    engine = HfEngine(settings())
    bases = [tiny_models.make_base(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    models = [ref(base.name, base, None) for base in bases]
    inbox = Inbox([request(engine, model, question) for model in models for question in QUESTIONS])
    again = {request(engine, model, "again").key: request(engine, model, "again") for model in models}
    for done in engine.run(inbox):
        follow_up = f"{done.key.partition('/')[0]}/again/0"
        if follow_up in again:
            inbox.put(again.pop(follow_up))
    assert not again and engine.loads == 2


def test_a_prefix_is_continued_and_left_out_of_the_result(engine: HfEngine, tiny_base: Path) -> None:
    model = ref("bare", tiny_base, None)
    one = request(engine, model, "abc")
    assert one.prompt.token_ids is not None
    expected = plain_greedy(plain_model(tiny_base, None), (*one.prompt.token_ids, 40, 41), 12)
    done = answers(engine, [replace(one, prefix=(40, 41))])[one.key]
    assert done.token_ids == expected
    assert done.prompt_tokens == len(one.prompt.token_ids)


def sampled_many(engine: HfEngine, tiny_base: Path, new: int, stop: tuple[str, ...] = ()) -> list[Any]:
    sampling = Sampling(1.5, 1.0, 0, new, stop)
    model = ref("bare", tiny_base, None)
    return list(
        answers(
            engine, [request(engine, model, q, sampling, s) for q in QUESTIONS for s in range(60)]
        ).values()
    )


def test_finish_reasons_tell_a_stop_from_the_limit(engine: HfEngine, tiny_base: Path) -> None:
    tokenizer = engine.renderer(ref("bare", tiny_base, None)).tokenizer
    done = sampled_many(engine, tiny_base, 40)
    stopped = [one for one in done if one.finish_reason == "stop"]
    assert 0 < len(stopped) < len(done)
    for one in done:
        ended = one.token_ids[-1] == tokenizer.eos_token_id
        assert ended == (one.finish_reason == "stop")
        assert tokenizer.eos_token_id not in one.token_ids[:-1]
        assert ended or len(one.token_ids) == 40
        assert one.text == tokenizer.decode(one.token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("stop", [("\n",), ("b",), ("the", "\n\n"), ("a b",), (" ",), ("é",)])
def test_a_stop_string_ends_the_text_and_stays_in_it(
    engine: HfEngine, tiny_base: Path, stop: tuple[str, ...]
) -> None:
    free = sampled_many(engine, tiny_base, 60)
    for whole, one in zip(free, sampled_many(engine, tiny_base, 60, stop), strict=True):
        assert one.token_ids == whole.token_ids[: len(one.token_ids)]
        decode = engine.renderer(ref("bare", tiny_base, None)).decode
        assert not any(mark in decode(one.token_ids[:-1]) for mark in stop)
        if any(mark in whole.text for mark in stop):
            assert any(mark in one.text for mark in stop)
            assert one.finish_reason == "stop"
        else:
            assert one == whole


def test_all_end_of_sequence_tokens_of_a_base_count(tmp_path: Path) -> None:
    import json

    base = tiny_models.make_base(tmp_path / "base")
    (base / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [10, 11], "repetition_penalty": 9.0, "max_length": 7, "do_sample": True})
    )
    engine = HfEngine(settings())
    done = sampled_many(engine, base, 60)
    ends = {one.token_ids[-1] for one in done if one.finish_reason == "stop"}
    assert ends == {10, 11, engine.renderer(ref("bare", base, None)).tokenizer.eos_token_id}
    shutil.copy(tiny_models.make_base(tmp_path / "plain") / "generation_config.json", base)
    greedy = [request(engine, ref("bare", base, None), question) for question in QUESTIONS]
    assert all(len(one.token_ids) <= 12 for one in answers(engine, greedy).values())


def test_a_prompt_that_fills_the_context_is_reported_and_the_rest_answered(tiny_base: Path) -> None:
    engine = HfEngine(settings(context_length=64))
    model = ref("bare", tiny_base, None)
    frame = len(request(engine, model, "").prompt.token_ids or ())
    asked = [request(engine, model, "x" * length) for length in (5, 64 - frame - 3, 64 - frame, 100)]
    made = list(answers(engine, asked).values())
    reasons = {done.key: done.finish_reason for done in made}
    assert [reasons[one.key] for one in asked[2:]] == ["prompt_too_long"] * 2
    by_key = {done.key: done for done in made}
    assert by_key[asked[2].key].token_ids == ()
    assert len(by_key[asked[1].key].token_ids) <= 3
    assert by_key[asked[0].key] == answers(engine, asked[:1])[asked[0].key]


def test_a_label_request_may_fill_the_context(tiny_base: Path) -> None:
    engine = HfEngine(settings(context_length=64))
    one = replace(request(engine, ref("bare", tiny_base, None), "x"), labels=labels(1, 2))
    room = engine.renderer(one.model).room(one.prompt)
    (full,) = answers(engine, [replace(one, prefix=(65,) * room)]).values()
    assert len(full.label_probs) == 2
    (over,) = answers(engine, [replace(one, prefix=(65,) * (room + 1))]).values()
    assert over.finish_reason == "prompt_too_long"


def test_running_out_of_gpu_memory_names_the_setting(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = HfEngine(settings())
    one = request(engine, ref("bare", tiny_base, None), "x")

    def exhausted(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_decode", exhausted)
    with pytest.raises(SpartaError, match=r"lower engine\.batch_tokens, now 32768"):
        answers(engine, [one])


def test_the_context_is_never_longer_than_the_base_allows(tiny_base: Path) -> None:
    model = ref("bare", tiny_base, None)
    assert HfEngine(settings(context_length=100)).renderer(model).context_length == 100
    assert HfEngine(settings(context_length=100_000)).renderer(model).context_length == 512


def test_fingerprints_are_of_content_not_of_paths(tmp_path: Path, tiny_base: Path) -> None:
    engine = HfEngine(settings())
    here = engine.tokenizer_fingerprint(ref("a", tiny_base, None))
    twin = tmp_path / "twin"
    shutil.copytree(tiny_base, twin)
    assert engine.tokenizer_fingerprint(ref("b", twin, None)) == here
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    config = other / "tokenizer_config.json"
    config.write_text(config.read_text().replace("assistant", "model"))
    assert engine.tokenizer_fingerprint(ref("c", other, None)) != here


def test_missing_and_unusable_files_are_named(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    engine = HfEngine(settings())
    with pytest.raises(SpartaError, match=r"nowhere is not a folder with a config\.json"):
        engine.renderer(ref("a", tmp_path / "nowhere", None))
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_base, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(SpartaError, match="safetensors"):
        engine.renderer(ref("a", pickled, None))
    silent = tmp_path / "silent"
    shutil.copytree(tiny_base, silent)
    config = silent / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"chat_template"', '"no_template"'))
    with pytest.raises(SpartaError, match="chat template"):
        engine.renderer(ref("a", silent, None))
    with pytest.raises(SpartaError, match="no such folder"):
        answers(engine, [request(engine, ref("a", tiny_base, tmp_path / "gone"), "x")])


def test_an_adapter_that_peft_loads_partly_is_refused_and_the_base_is_reloaded(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    half = tiny_models.renamed_adapter(
        tmp_path / "half",
        tiny_adapters["ada"],
        lambda name: None if "layers.1.self_attn.k_proj" in name else name,
    )
    engine, good = HfEngine(settings()), ref("ada", tiny_base, tiny_adapters["ada"])
    before = answers(engine, [request(engine, good, "x")])
    for _ in range(2):
        with pytest.raises(SpartaError, match=f"^model half: adapter {half} does not fit base .*2 that its"):
            answers(engine, [request(engine, ref("half", tiny_base, half), "x")])
    assert answers(engine, [request(engine, good, "x")]) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny_base: Path) -> None:
    engine = HfEngine(settings(device="cuda"))
    with pytest.raises(SpartaError, match="asks for a GPU, but there is none"):
        answers(engine, [request(engine, ref("a", tiny_base, None), "x")])


def test_generation_and_training_see_the_same_tokens(tiny_base: Path, tiny_adapters: dict[str, Path]) -> None:
    """DPO trains on `combat` ids followed by the response's ids; generation must have seen and produced
    exactly these.
    """
    engine = HfEngine(settings())
    model = ref("ada", tiny_base, tiny_adapters["ada"])
    seen: list[tuple[int, ...]] = []
    messages = [Message("system", "be brief"), Message("user", "a<|im_end|>b")]
    prompt = engine.renderer(model).combat(messages)
    asked = [
        Request(str(seed), model, prompt, replace(SAMPLED, temperature=2.0, max_new_tokens=60), seed)
        for seed in range(40)
    ]
    engine._weights.hold(model)
    hook = engine._weights._bare.model.embed_tokens.register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0][0].tolist()))
    )
    for one in asked:
        seen.clear()
        (done,) = engine.run(Inbox([one]))
        fed = tuple(token for part in seen for token in part)
        again = engine.renderer(model).combat(messages).token_ids
        assert again is not None
        assert fed == again + done.token_ids[:-1]
        if done.finish_reason == "stop":
            assert done.token_ids[-1] == engine.renderer(model).tokenizer.eos_token_id
    hook.remove()
