"""The engine on `vllm serve`, a real endpoint, with the toy pool: answers equal those of local models."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.api_proxy import Proxy, error
from support.engine_contract import GREEDY, QUESTIONS, SAMPLED, answers, ref, request, settings
from support.scripted_run import DEADLINE
from support.vllm_server import vllm_serving

from sparta import toy
from sparta.arena.votes import expected_score
from sparta.chat.judge_prompts import judging_instruction
from sparta.chat.template import Message
from sparta.engines.api import endpoint
from sparta.engines.api.call_cache import spent_in
from sparta.engines.api.engine import ApiEngine
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request
from sparta.engines.hf.engine import HfEngine
from sparta.engines.label_tokens import labels_of
from sparta.errors import SpartaError
from sparta.recipes.schema import Judging
from sparta.store.files import sha256_tree

BARE = ref("bare", toy.BASE, None)
EXPERTS = [
    ref(name, toy.BASE, toy.ADAPTERS[name], sha256_tree(toy.ADAPTERS[name])[:12])
    for name in ("adder", "sorter", "mirror")
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM server with the toy base and runtime LoRA loading."""
    options = ["--enable-lora", "--max-loras", "4", "--max-cpu-loras", "12"]
    options += ["--lora-modules", f"served-adder={toy.ADAPTERS['adder']}"]
    with vllm_serving(
        tmp_path_factory.mktemp("vllm"), str(toy.BASE), *options, VLLM_ALLOW_RUNTIME_LORA_UPDATING="True"
    ) as url:
        yield url


@pytest.fixture
def make(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ApiEngine]]:
    """Makes engines on the server, or on a proxy before it, that share one call cache."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.02)
    made: list[ApiEngine] = []

    def _make(**api: object) -> ApiEngine:
        api = {
            "url": server,
            "dialect": "vllm",
            "load_adapters": True,
            "concurrency": 8,
            "timeout": DEADLINE,
            **api,
        }
        made.append(ApiEngine(settings(kind="api", context_length=256, api=api), tmp_path / "calls"))
        return made[-1]

    yield _make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    engine = HfEngine(settings(context_length=256))
    yield engine
    engine.close()


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    made = Proxy(server)
    yield made
    made.die()


def meanings(done: dict[str, Completion]) -> dict[str, tuple[str, int, str]]:
    """What an endpoint and a local engine must agree on."""
    return {key: (one.text, one.prompt_tokens, one.finish_reason) for key, one in done.items()}


def test_greedy_answers_equal_those_of_local_models(make: Callable[..., ApiEngine], local: Engine) -> None:
    engine = make()
    members = [BARE, *EXPERTS]
    engine.expect(members)
    questions = [*QUESTIONS, "sort 4 3 2", "mirror abc", "x" * 300]

    def asked(of: Engine) -> list[Request]:
        return [request(of, model, question) for model in members for question in questions]

    here = meanings(answers(local, asked(local)))
    there = meanings(answers(engine, asked(engine)))
    too_long = [key for key, done in here.items() if done[2] == "prompt_too_long"]
    assert len(too_long) == len(members)
    for key in too_long:
        assert there.pop(key)[2] == here.pop(key)[2]
    assert there == here
    assert len({done[0] for done in there.values()}) > 8


def test_a_long_prompt_leaves_room_for_a_short_answer(make: Callable[..., ApiEngine], local: Engine) -> None:
    engine = make()
    sampling = replace(GREEDY, max_new_tokens=60)
    prompts = [local.renderer(BARE).combat([Message("user", "x" * size)]).token_ids for size in range(256)]
    # 1, 3 and 40 tokens are left of the context, then none.
    sizes = [size for size, ids in enumerate(prompts) if 256 - len(ids or ()) in (1, 3, 40, 0, -1)]
    assert len(sizes) >= 3

    def asked(of: Engine) -> list[Request]:
        return [request(of, BARE, "x" * size, sampling) for size in sizes]

    here, there = (meanings(answers(of, asked(of))) for of in (local, engine))
    assert {done[2] for done in here.values()} >= {"length", "prompt_too_long"}
    too_long = {key for key, done in here.items() if done[2] == "prompt_too_long"}
    assert {key for key, done in there.items() if done[2] == "prompt_too_long"} == too_long
    assert [there[key] for key in here if key not in too_long] == [
        here[key] for key in here if key not in too_long
    ]


def judging(engine: Engine, model: ModelRef, question: str, response: str) -> Request:
    rules = Judging(mode="expected")
    renderer = engine.renderer(model)
    prompt = renderer.judging(
        [Message("user", question)],
        response,
        instruction=judging_instruction("expected", False, rules.labels),
        max_new_tokens=8,
    )
    return Request(
        f"{model.name}/{question}/{response}", model, prompt, SAMPLED, 3, labels_of(renderer, rules)
    )


def test_expected_votes_equal_those_of_local_models(make: Callable[..., ApiEngine], local: Engine) -> None:
    engine = make()
    ballots = [("add 4 7", "11"), ("add 4 7", "12"), ("sort 4 3 2", "234"), ("sort 4 3 2", "banana")]

    def votes(of: Engine) -> dict[str, Completion]:
        return answers(of, [judging(of, model, *ballot) for model in EXPERTS for ballot in ballots])

    here, there = votes(local), votes(engine)
    worst = 0.0
    for key, done in there.items():
        assert (done.text, done.finish_reason, len(done.label_probs)) == ("", "stop", 10)
        shares = zip(done.label_probs, here[key].label_probs, strict=True)
        worst = max(worst, *(abs(one - other) for one, other in shares))
        assert expected_score(done.label_probs) == pytest.approx(
            expected_score(here[key].label_probs), abs=0.02
        )
    assert worst < 0.02
    assert len({round(expected_score(done.label_probs), 2) for done in there.values()}) > 4


def test_sampling_follows_its_seed_and_its_limits(make: Callable[..., ApiEngine], tmp_path: Path) -> None:
    engine = make()
    [adder, *_] = EXPERTS
    asked = [
        request(engine, adder, "What is it?", replace(SAMPLED, temperature=1.5), seed) for seed in range(6)
    ]
    once = answers(engine, asked)
    assert len({done.text for done in once.values()}) > 1
    assert all(done.token_ids == () for done in once.values())
    for file in (tmp_path / "calls").iterdir():
        file.unlink()
    fresh = make()
    assert meanings(answers(fresh, asked)) == meanings(once)
    [first] = answers(
        fresh, [replace(asked[0], sampling=replace(SAMPLED, temperature=2.0, top_k=1))]
    ).values()
    [greedy] = answers(fresh, [request(fresh, adder, "What is it?")]).values()
    assert first.text == greedy.text


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_stop_strings_stay_in_the_text(make: Callable[..., ApiEngine], dialect: str) -> None:
    engine = make(dialect=dialect)
    [whole] = answers(engine, [request(engine, BARE, "add 4 7")]).values()
    assert len(whole.text) > 2
    stop = whole.text[1]
    [done] = answers(engine, [request(engine, BARE, "add 4 7", replace(GREEDY, stop=(stop,)))]).values()
    assert (done.text, done.finish_reason) == (whole.text[: whole.text.index(stop) + 1], "stop")


def test_a_pattern_constrains_the_text(make: Callable[..., ApiEngine]) -> None:
    engine = make()
    asked = [
        replace(request(engine, model, "add 4 7", SAMPLED, seed), pattern=r'\{"score": ?(?:10|[1-9])\}')
        for model in (BARE, *EXPERTS)
        for seed in range(2)
    ]
    texts = [done.text for done in answers(engine, asked).values()]
    assert all(text.startswith('{"score":') and text.endswith("}") for text in texts)


def test_network_faults_change_no_answer_and_answers_are_paid_once(
    make: Callable[..., ApiEngine], proxy: Proxy, tmp_path: Path
) -> None:
    def asked(engine: ApiEngine) -> list[Request]:
        return [request(engine, model, f"add {i} 7") for model in EXPERTS for i in range(8)]

    proxy.replies += [error(429, "slow down", **{"retry-after": "1"}), error(500, "oops"), error(503, "busy")]
    engine = make(url=proxy.url, concurrency=3)
    through = meanings(answers(engine, asked(engine)))
    assert len(proxy.chats) == 27
    assert proxy.most_under_way <= 3
    assert len([one for one in proxy.seen if one.path.endswith("/load_lora_adapter")]) == 3
    again = make(url=proxy.url)
    assert meanings(answers(again, asked(again))) == through
    assert len(proxy.chats) == 27
    spent = spent_in(tmp_path / "calls", again.settings.api)
    assert (spent.calls, spent.prompt_tokens) == (24, sum(done[1] for done in through.values()))
    assert spent.new_tokens >= sum(len(done[0]) for done in through.values())


def test_a_version_is_loaded_once_and_the_one_before_it_unloaded(
    make: Callable[..., ApiEngine], server: str
) -> None:
    engine = make()
    [adder, *_] = EXPERTS
    first, later = (replace(adder, name="learner", version=version) for version in ("1", "2"))
    later = replace(later, adapter=toy.ADAPTERS["turner"])
    texts = []
    for model in (first, later):
        engine.expect([BARE, model])
        texts.append(meanings(answers(engine, [request(engine, model, question) for question in QUESTIONS])))
    assert texts[0] != texts[1]
    served = _served(server)
    assert endpoint.adapter_name(later) in served
    assert endpoint.adapter_name(first) not in served
    # Another process has loaded it already: that is no error.
    other = make()
    assert len(answers(other, [request(other, later, "reverse abd")])) == 1


def _served(server: str) -> list[Any]:
    with urllib.request.urlopen(f"{server}/models", timeout=DEADLINE) as response:
        return [model["id"] for model in json.load(response)["data"]]


def test_an_adapter_that_is_served_already_keeps_its_name_at_the_endpoint(
    make: Callable[..., ApiEngine],
) -> None:
    [adder, *_] = EXPERTS
    named, loaded = make(load_adapters=False, models={"adder": "served-adder"}), make()
    named.expect([adder])
    [one] = answers(named, [request(named, adder, "add 4 7")]).values()
    [other] = answers(loaded, [request(loaded, adder, "add 4 7")]).values()
    assert one.text == other.text


def test_an_unknown_model_at_the_server_is_reported_in_one_sentence(
    make: Callable[..., ApiEngine], server: str
) -> None:
    missing = ref("gone", toy.BASE, Path("/nowhere/at/all"), "1")
    unknown = ref("stranger", Path("/other/base"), None)
    for model, words in [
        (missing, f"{server} cannot load the adapter /nowhere/at/all of gone (answered HTTP 404: "),
        (
            unknown,
            f"{server}, asked for stranger, answered HTTP 404: The model `/other/base` does not exist.",
        ),
    ]:
        engine = make()
        with pytest.raises(SpartaError) as caught:
            list(engine.run(Inbox([request(engine, model, "what?")])))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
