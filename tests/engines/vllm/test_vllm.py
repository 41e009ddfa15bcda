"""VllmEngine, in this process, on the embedded toy pool: the same results as HfEngine, in any batch."""

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from support import tiny_models
from support.engine_contract import GREEDY, SAMPLED, answers, ref, reference_logs, request, settings, weighing

from sparta import toy
from sparta.arena.votes import expected_score, parse_score
from sparta.chat.judge_prompts import judging_instruction, judging_pattern
from sparta.chat.template import Message
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request, Sampling
from sparta.engines.hf.engine import HfEngine
from sparta.engines.label_tokens import labels_of
from sparta.engines.stopwatch import START, WEIGHTS, timing
from sparta.engines.vllm.engine import VllmEngine
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine
from sparta.recipes import schema as recipe
from sparta.toy.family import items

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)

POOL = [ref(name, toy.BASE, folder) for name, folder in toy.ADAPTERS.items()]
QUESTIONS = [item.question for item in items("validation", 20, 0)]
EXPECTED = recipe.Judging(mode="expected")


def vllm_settings(**values: object) -> recipe_engine.EngineSettings:
    small = {"own_process": False, "cpu_cache_gib": 0.25, "sequences": 16, **values}
    return settings(context_length=256, vllm=small)


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    """One engine for all tests on the toy base."""
    engine = VllmEngine(vllm_settings())
    engine.expect(POOL)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def other() -> Iterator[HfEngine]:
    engine = HfEngine(settings(context_length=256))
    yield engine
    engine.close()


def judging(engine: Engine, model: ModelRef, question: str, response: str) -> Request:
    renderer = engine.renderer(model)
    prompt = renderer.judging(
        [Message("user", question)],
        response,
        instruction=judging_instruction("expected", False, EXPECTED.labels),
        max_new_tokens=8,
    )
    labels = labels_of(renderer, EXPECTED)
    return Request(f"{model.name}/{question}/{response}", model, prompt, GREEDY, 0, labels)


def agreement(mine: dict[str, Completion], theirs: dict[str, Completion]) -> float:
    assert mine.keys() == theirs.keys()
    return sum(mine[key] == theirs[key] for key in mine) / len(mine)


def scores(made: dict[str, Completion]) -> dict[str, float]:
    return {key: expected_score(done.label_probs) for key, done in made.items()}


def test_greedy_answers_are_those_of_hf(engine: VllmEngine, other: HfEngine) -> None:
    asked = [request(engine, model, question) for question in QUESTIONS for model in POOL]
    assert agreement(answers(engine, asked), answers(other, asked)) >= 0.99


def test_expected_scores_are_those_of_hf(engine: VllmEngine, other: HfEngine) -> None:
    asked = [
        judging(engine, model, question, response)
        for model in POOL
        for question in QUESTIONS[:10]
        for response in ("+093", "007")
    ]
    mine, theirs = answers(engine, asked), answers(other, asked)
    assert all(sum(done.label_probs) == pytest.approx(1) for done in mine.values())
    assert [replace(done, label_probs=()) for key, done in sorted(mine.items())] == [
        replace(done, label_probs=()) for key, done in sorted(theirs.items())
    ]
    expected = scores(theirs)
    assert all(abs(score - expected[key]) < 0.01 for key, score in scores(mine).items())


def test_written_votes_are_those_of_hf_and_in_the_models_own_tokens(
    engine: VllmEngine, other: HfEngine
) -> None:
    """The toy's judges write reasoning and then a separate token that begins the score; the pattern must allow that token."""
    instruction = judging_instruction("text", True, EXPECTED.labels)
    asked = [
        replace(
            request(engine, model, "", replace(GREEDY, max_new_tokens=16)),
            key=f"{model.name}/{question}",
            prompt=engine.renderer(model).judging(
                [Message("user", question)], "+093", instruction=instruction, max_new_tokens=16
            ),
            pattern=judging_pattern(reasoning=True),
        )
        for model in POOL
        for question in QUESTIONS
    ]
    mine, theirs = answers(engine, asked), answers(other, asked)
    assert agreement(mine, theirs) >= 0.99
    read = [parse_score(done.text, bare=False) for done in mine.values()]
    assert sum(score is not None for score in read) >= 0.95 * len(read)


@pytest.mark.parametrize("plain", [True, False])
def test_log_likelihoods_are_those_of_plain_transformers_and_peft(engine: VllmEngine, plain: bool) -> None:
    """Choices of different lengths, ten adapters and generated answers in the same batches; the second time mostly from the prefix cache."""
    weighed = [
        weighing(engine, model, question, text, plain)
        for question in (*QUESTIONS[:3], QUESTIONS[3] + " and what comes next" * 5)
        for model in POOL
        for text in ("0", "+093", "007 and a few more")
    ]
    weighed += [replace(one, key=f"{one.key}/begun", prefix=(20, 21)) for one in weighed[::7]]
    written = [request(engine, model, question) for question in QUESTIONS[:3] for model in POOL]
    mixed = [one for pair in zip(weighed, written, strict=False) for one in pair] + weighed[len(written) :]
    expected = reference_logs(weighed)
    for _ in range(2):
        made = answers(engine, mixed)
        for one in weighed:
            done = made.pop(one.key)
            assert done.log_likelihood == pytest.approx(expected[one.key], abs=1e-4)
            whole = Completion(one.key, "", (), len(one.prompt.token_ids or ()), "stop", 0.0)
            assert replace(done, log_likelihood=0.0) == whole
        assert agreement(made, answers(engine, written)) >= 0.95
    assert len({round(log, 3) for log in expected.values()}) > 0.9 * len(weighed)


def test_a_continuation_leaves_room_for_one_token_in_the_context(engine: VllmEngine, other: HfEngine) -> None:
    one = weighing(engine, POOL[0], QUESTIONS[0], "0", True)
    room = engine.renderer(one.model).room(one.prompt)
    asked = [replace(one, key=str(spare), continuation=(20,) * (room - spare)) for spare in (2, 1, 0)]
    made, theirs = answers(engine, asked), answers(other, asked)
    assert [made[str(spare)].finish_reason for spare in (2, 1, 0)] == ["stop", "stop", "prompt_too_long"]
    for spare in ("2", "1"):
        # Of two hundred unlikely tokens, each in float32, whose last digits a sum of a thousand nats no longer holds.
        assert made[spare].log_likelihood == pytest.approx(theirs[spare].log_likelihood, rel=1e-6)


def test_completions_come_before_all_requests_are_taken_and_follow_ups_come_next(
    engine: VllmEngine,
) -> None:
    drawn = []

    def draw() -> Iterator[Request]:
        for number in range(100):
            drawn.append(number)
            yield request(engine, POOL[number % 10], f"{number} + 1", seed=number)

    inbox, order = Inbox(draw()), []
    for done in engine.run(inbox):
        if not order:
            assert len(drawn) <= 2 * 16
            inbox.put(replace(request(engine, POOL[0], "2 + 2"), key="follow-up"))
        order.append(done.key)
    assert len(order) == len(set(order)) == 101
    assert order.index("follow-up") < 80


def test_a_consumer_may_stop_early_and_the_next_run_starts_clean(engine: VllmEngine) -> None:
    asked = [request(engine, model, question) for question in QUESTIONS[:4] for model in POOL]
    expected = answers(engine, asked)
    run = engine.run(Inbox(asked))
    assert next(run).key in expected
    run.close()  # type: ignore[attr-defined]
    assert engine._open is not None and not engine._open.engine.has_unfinished_requests()
    assert answers(engine, asked[:9]) == {one.key: expected[one.key] for one in asked[:9]}


def test_sampled_text_depends_on_the_request_alone(engine: VllmEngine) -> None:
    asked = [
        request(engine, model, question, SAMPLED, seed)
        for model in POOL[:3]
        for question in QUESTIONS[:3]
        for seed in range(4)
    ]
    together = answers(engine, asked)
    assert together == answers(engine, reversed(asked))
    for one in asked[::5]:
        assert answers(engine, [one]) == {one.key: together[one.key]}
    assert len({done.token_ids for done in together.values()}) > len(asked) // 4


def test_stop_strings_stay_in_the_text_as_with_hf(engine: VllmEngine, other: HfEngine) -> None:
    stopping = replace(GREEDY, stop=("1", "+4"))
    asked = [request(engine, model, question, stopping) for question in QUESTIONS[:5] for model in POOL]
    made = answers(engine, asked)
    assert agreement(made, answers(other, asked)) >= 0.98
    assert any(done.text.endswith("1") and done.finish_reason == "stop" for done in made.values())


def test_a_pattern_holds_and_a_limit_cuts_it(engine: VllmEngine, other: HfEngine) -> None:
    pattern = r"[1-9][0-9]{4}"
    free = [request(engine, model, question) for question in QUESTIONS[:3] for model in POOL]
    asked = [replace(one, pattern=pattern) for one in free]
    made = answers(engine, asked)
    assert all(re.fullmatch(pattern, done.text) and done.finish_reason == "stop" for done in made.values())
    assert agreement(made, answers(other, asked)) >= 0.95
    assert answers(engine, asked) == made, "a pattern that vLLM knows by now"
    short = replace(asked[0], sampling=replace(GREEDY, max_new_tokens=2))
    (cut,) = answers(engine, [short]).values()
    assert re.fullmatch(r"[1-9][0-9]", cut.text) and cut.finish_reason == "length"


def test_a_completion_continues_its_prefix(engine: VllmEngine) -> None:
    whole = request(engine, POOL[0], QUESTIONS[0])
    (done,) = answers(engine, [whole]).values()
    (rest,) = answers(engine, [replace(whole, prefix=done.token_ids[:2])]).values()
    assert rest.token_ids == done.token_ids[2:]
    assert rest.prompt_tokens == done.prompt_tokens


def test_a_prompt_without_room_is_too_long_and_a_completion_ends_with_the_context(
    engine: VllmEngine, other: HfEngine
) -> None:
    long = [
        request(engine, POOL[0], "1" * length, replace(GREEDY, max_new_tokens=40))
        for length in range(200, 290, 3)
    ]
    made = answers(engine, long)
    reasons = {done.finish_reason for done in made.values()}
    assert "prompt_too_long" in reasons and len(reasons) > 1
    theirs = answers(other, long)
    assert {key: done.finish_reason == "prompt_too_long" for key, done in made.items()} == {
        key: done.finish_reason == "prompt_too_long" for key, done in theirs.items()
    }
    assert all(done.prompt_tokens + len(done.token_ids) <= 256 for done in made.values() if done.token_ids)


def test_another_version_of_an_adapter_answers_with_its_own_weights(
    engine: VllmEngine, other: HfEngine
) -> None:
    """The same name and cached prompts, but other weights."""
    first, second = POOL[0], replace(POOL[0], adapter=toy.ADAPTERS["mirror"], version="1")
    mirror = next(model for model in POOL if model.name == "mirror")
    loads = engine.loads
    before = answers(engine, [request(engine, first, question) for question in QUESTIONS])
    after = answers(engine, [request(engine, second, question) for question in QUESTIONS])
    there = answers(other, [request(other, mirror, question) for question in QUESTIONS])
    same = [
        after[f"adder/{question}/0"].token_ids == there[f"mirror/{question}/0"].token_ids
        for question in QUESTIONS
    ]
    assert sum(same) >= 0.99 * len(same)
    assert after != before
    assert engine.loads == loads
    assert answers(engine, [request(engine, first, question) for question in QUESTIONS]) == before


def tokens_of(made: dict[str, Completion], model: ModelRef) -> list[tuple[int, ...]]:
    """The answers of a version, in the order of QUESTIONS."""
    return [made[f"{model.name}/{model.version}/{question}"].token_ids for question in QUESTIONS]


def versioned(engine: Engine, model: ModelRef, question: str) -> Request:
    return replace(request(engine, model, question), key=f"{model.name}/{model.version}/{question}")


def adapters_with(engine: VllmEngine) -> set[str]:
    """The adapters of the requests in flight."""
    assert engine._open is not None
    states = engine._open.engine.output_processor.request_states.values()
    return {state.lora_name for state in states}


def test_versions_of_a_model_share_a_batch_and_go_when_others_are_expected(
    engine: VllmEngine, other: HfEngine
) -> None:
    """As when the checkpoints of several iterations are evaluated: one name, several weights."""
    folders = [toy.ADAPTERS[name] for name in ("adder", "mirror", "taker")]
    first, second, third = (ref("adder", toy.BASE, folder, folder.name) for folder in folders)
    fourth = replace(first, version="later")
    engine.expect([*POOL, first, second])
    loads, together = engine.loads, []
    asked = [versioned(engine, model, question) for question in QUESTIONS for model in (first, second)]
    made = {}
    for done in engine.run(Inbox(asked)):
        made[done.key] = done
        together.append(adapters_with(engine))
    assert {adapter_name(first), adapter_name(second)} in together
    for model in (first, second):
        theirs = answers(other, [versioned(other, model, question) for question in QUESTIONS])
        same = [a == b for a, b in zip(tokens_of(made, model), tokens_of(theirs, model), strict=True)]
        assert sum(same) >= 0.99 * len(same)
    assert tokens_of(made, first) != tokens_of(made, second)

    # Newer ones, while requests for the older are under way: these are finished, in company.
    inbox, together, again = Inbox(asked), [], {}
    for done in engine.run(inbox):
        if not again:
            engine.expect([third])
            for question in QUESTIONS:
                inbox.put(versioned(engine, third, question))
        again[done.key] = replace(done, seconds=0.0)
        together.append(adapters_with(engine))
    assert {key: again[key] for key in made} == {
        key: replace(done, seconds=0.0) for key, done in made.items()
    }
    assert any(adapter_name(third) in names and len(names) > 1 for names in together)

    engine.expect([fourth])
    late = answers(engine, [versioned(engine, fourth, question) for question in QUESTIONS])
    assert tokens_of(late, fourth) == tokens_of(made, first)
    assert engine._open is not None
    assert engine._open._loras.keys() == {adapter_name(fourth)}
    assert len(engine._open.engine.list_loras()) == 1
    assert engine.loads == loads
    engine.expect(POOL)


def test_copies_are_one_adapter_and_answer_each_with_its_own_seed(engine: VllmEngine) -> None:
    copies = [replace(POOL[0], name=f"adder-{number}") for number in range(2, 7)]
    apart = replace(copies[-1], version="learned")
    engine.expect([*POOL[:3], *copies])
    capacity, loads, together = engine._capacities[str(toy.BASE)], engine.loads, []
    assert (capacity.mixed, capacity.kept) == (3, 3)
    asked = [request(engine, model, question) for question in QUESTIONS[:5] for model in (POOL[0], *copies)]
    made = {}
    for done in engine.run(Inbox(asked)):
        made[done.key] = done.token_ids
        together.append(adapters_with(engine))
    assert set().union(*together) == {adapter_name(POOL[0])}
    assert made.keys() == {one.key for one in asked}
    for question in QUESTIONS[:5]:
        assert len({made[f"{model.name}/{question}/0"] for model in copies}) == 1
    drawn = [
        request(engine, model, question, SAMPLED, seed)
        for question in QUESTIONS[:5]
        for seed, model in enumerate(copies)
    ]
    assert len({done.token_ids for done in answers(engine, drawn).values()}) > len(copies)
    assert engine._open is not None
    before = {lora.lora_int_id for lora in engine._open._loras.values()}
    answers(engine, [request(engine, apart, "1 + 1")])
    after = {lora.lora_int_id for lora in engine._open._loras.values()}
    assert len(after - before) == 1, "a copy that has learned is an adapter of its own"
    assert engine.loads == loads
    engine.expect(POOL)


def test_an_adapter_that_cannot_be_loaded_leaves_the_engine_unchanged(
    engine: VllmEngine, tmp_path: Path
) -> None:
    answers(engine, [request(engine, POOL[0], "1 + 1")])
    folder = Path(shutil.copytree(toy.ADAPTERS["adder"], tmp_path / "adder"))
    model, weights, loads = ref("late", toy.BASE, folder), folder / "adapter_model.safetensors", engine.loads
    engine.expect([*POOL, model])
    weights.rename(tmp_path / "weights")
    with pytest.raises(SpartaError, match=rf"adapter {folder} of late cannot be loaded on base"):
        answers(engine, [request(engine, model, "1 + 1")])
    assert answers(engine, [request(engine, POOL[0], "1 + 1")])
    (tmp_path / "weights").rename(weights)
    assert answers(engine, [request(engine, model, "1 + 1")])
    assert engine.loads == loads
    engine.expect(POOL)


def test_an_adapter_with_parts_that_have_no_module_in_vllm_is_refused_and_the_others_work(
    engine: VllmEngine, tmp_path: Path
) -> None:
    def lost(name: str) -> str:
        return name.replace("model.layers.1.self_attn", "other.model.layers.1.self_attn")

    stray = ref(
        "stray", toy.BASE, tiny_models.renamed_adapter(tmp_path / "stray", toy.ADAPTERS["adder"], lost)
    )
    answers(engine, [request(engine, POOL[0], "1 + 1")])
    loads = engine.loads
    engine.expect([*POOL, stray])
    words = r"^model stray: adapter .* 4 of its tensors have no module there \(other.model.layers.1.self_attn"
    for _ in range(2):
        with pytest.raises(SpartaError, match=words):
            answers(engine, [request(engine, stray, "1 + 1")])
    assert answers(engine, [request(engine, POOL[0], "1 + 1")])
    assert engine.loads == loads
    engine.expect(POOL)


def test_the_seconds_of_requests_add_up_to_those_of_the_run(engine: VllmEngine) -> None:
    from time import perf_counter

    answers(engine, [request(engine, POOL[0], "1 + 1")])
    asked = [request(engine, model, question) for question in QUESTIONS[:4] for model in POOL]
    began = perf_counter()
    spent = [done.seconds for done in engine.run(Inbox(asked))]
    assert 0.5 < sum(spent) / (perf_counter() - began) <= 1.01


def test_a_request_that_vllm_refuses_names_the_model(engine: VllmEngine) -> None:
    wrong = request(engine, POOL[0], "1 + 1", Sampling(0.5, 1.5, 0, 4))
    with pytest.raises(SpartaError, match=r"for adder: top_p must be in \(0, 1\]"):
        answers(engine, [wrong])
    patterned = replace(request(engine, POOL[0], "1 + 1"), pattern="(")
    for _ in range(2):
        with pytest.raises(SpartaError, match=r"for adder: .*[Gg]rammar"):
            answers(engine, [patterned])
    assert answers(engine, [request(engine, POOL[0], "1 + 1")])


def test_an_adapter_for_another_base_is_refused_before_anything_is_loaded(
    engine: VllmEngine, tiny_adapters: dict[str, Path]
) -> None:
    loads = engine.loads
    with pytest.raises(SpartaError, match=r"model stray: .* for another base"):
        engine.expect([ref("stray", toy.BASE, tiny_adapters["ada"])])
    with pytest.raises(SpartaError, match=r"model stray: .* for another base"):
        answers(engine, [request(engine, ref("stray", toy.BASE, tiny_adapters["ada"]), "1")])
    assert engine.loads == loads


def merged(folder: Path, adapter: Path) -> Path:
    """A full model: the toy's base with an adapter in its weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(toy.BASE), str(adapter))
    model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(toy.BASE).save_pretrained(folder)
    return folder


def test_full_models_are_loaded_one_after_the_other_and_answer_as_with_hf(
    tmp_path: Path, other: HfEngine
) -> None:
    names = ("adder", "mirror")
    models = [ref(name, merged(tmp_path / name, toy.ADAPTERS[name]), None) for name in names]
    engine = VllmEngine(vllm_settings())
    engine.expect(models)
    assert engine.loads == 0
    asked = [request(engine, model, question) for model in models for question in QUESTIONS]
    asked += [judging(engine, models[1], question, "+093") for question in QUESTIONS]
    notes: list[Mapping[str, float]] = []
    with timing("judge", lambda parts, _: notes.append(parts)):
        mine = answers(engine, asked)
    theirs = answers(other, asked)
    assert (engine.loads, engine.load_seconds > 0) == (2, True)
    starting = {part: seconds for part, seconds in notes[-1].items() if part.startswith(START)}
    assert sum(starting.values()) == pytest.approx(engine.load_seconds, rel=0.05)
    assert 0 < starting[WEIGHTS] < engine.load_seconds and "start compile" not in starting
    written = [one.key for one in asked if not one.labels]
    assert sum(mine[key] == theirs[key] for key in written) >= 0.99 * len(written)
    judged = [one.key for one in asked if one.labels]
    expected = scores({key: theirs[key] for key in judged})
    assert all(
        abs(score - expected[key]) < 0.01 for key, score in scores({key: mine[key] for key in judged}).items()
    )
    newer = replace(models[1], version="1")
    assert answers(engine, [request(engine, newer, question) for question in QUESTIONS]).keys() <= mine.keys()
    assert engine.loads == 3, "other weights under the same name"
    engine.close()
    engine.close()


def test_log_likelihoods_that_vllm_cannot_compute_are_refused(tmp_path: Path) -> None:
    """A Llama with adapters, on a CPU, where only generation works."""
    from transformers import LlamaConfig, LlamaForCausalLM

    base = tiny_models.make_base(tmp_path / "base", width=128)
    told = json.loads((base / "config.json").read_text(encoding="utf-8"))
    shape = {name: told[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "eos_token_id")}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(**shape, **heads)).save_pretrained(base)
    model = ref("ada", base, tiny_models.make_adapter(tmp_path / "ada", base, seed=1))
    engine = VllmEngine(vllm_settings())
    engine.expect([model])
    assert answers(engine, [request(engine, model, "1 + 1")])
    with pytest.raises(
        SpartaError, match=r"cannot score log-likelihoods with adapters .*: set engine.kind to hf"
    ):
        answers(engine, [weighing(engine, model, "1 + 1", "2", True)])
    assert engine.loads == 1
    engine.close()


def test_end_of_sequence_tokens_of_a_base_count_its_sampling_defaults_do_not_and_a_larger_rank_reloads_it(
    tmp_path: Path, other: HfEngine
) -> None:
    # vLLM on a CPU takes heads of 32 and more.
    base = tiny_models.make_base(tmp_path / "base", width=128)
    small = ref("small", base, tiny_models.make_adapter(tmp_path / "small", base, seed=1, rank=4))
    large = ref("large", base, tiny_models.make_adapter(tmp_path / "large", base, seed=2, rank=12))
    longer = replace(GREEDY, max_new_tokens=30)
    questions = [f"question {number}" for number in range(20)]
    free = answers(other, [request(other, small, question, longer) for question in questions])
    other.close()
    common = next(iter(islice((done.token_ids[9] for done in free.values() if len(done.token_ids) > 10), 1)))
    told = json.loads((base / "generation_config.json").read_text(encoding="utf-8"))
    ends = [told["eos_token_id"], common]
    habits = {**told, "eos_token_id": ends, "repetition_penalty": 3.0, "temperature": 0.3, "do_sample": True}
    (base / "generation_config.json").write_text(json.dumps(habits), encoding="utf-8")

    engine = VllmEngine(vllm_settings())
    engine.expect([small])
    asked = [request(engine, small, question, longer) for question in questions]
    made = answers(engine, asked)
    assert agreement(made, answers(other, asked)) >= 0.95
    assert made != free
    assert any(done.token_ids[-1] == common and done.finish_reason == "stop" for done in made.values())
    engine.expect([small, large])
    assert engine.loads == 1
    asked = [request(engine, large, question, longer) for question in questions]
    assert agreement(answers(engine, asked), answers(other, asked)) >= 0.95
    assert engine.loads == 2
    engine.expect([small])
    answers(engine, [request(engine, small, questions[0], longer)])
    assert engine.loads == 2, "more room than needed is no reason to load again"
    engine.close()
