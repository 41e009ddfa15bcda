"""Thinking models at an endpoint: thinking is separated in the same way by the endpoint or by its tags."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models
from support.api_proxy import Proxy, Reply, complete
from support.chat_templates import LLAMA_LIKE, QWEN3_LIKE, R1_LIKE, THINKING_TOKENS
from support.engine_contract import SAMPLED, ref, request, settings
from support.scripted_run import DEADLINE

from sparta.chat.options import ChatOptions
from sparta.chat.template import Message
from sparta.chat.thinking import SplitReply
from sparta.engines.api.engine import ApiEngine
from sparta.errors import SpartaError
from sparta.pool.checks import check_prompts
from sparta.recipes.load import validated
from sparta.recipes.schema import Recipe


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.die()


@pytest.fixture
def ask(proxy: Proxy) -> Iterator[Callable[..., SplitReply]]:
    """Thinking and answer of a model on a base with this template, if the endpoint returns this message."""
    made: list[ApiEngine] = []

    def asked(base: Path, message: dict[str, Any], finish: str = "stop", **options: Any) -> SplitReply:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        proxy.replies.append(
            Reply(body={"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
        )
        api = {"url": proxy.url, "timeout": DEADLINE, "dialect": "vllm"}
        engine = ApiEngine(settings(kind="api", api=api), None, chat=ChatOptions(**options))
        made.append(engine)
        one = request(engine, ref("m", base, None), "what?", SAMPLED)
        [done] = complete(engine, [one])
        return engine.renderer(one.model).split_reply(one.prompt, done.text)

    yield asked
    for engine in made:
        engine.close()


def base_with(folder: Path, template: str) -> Path:
    tiny_models.make_tokenizer(folder, template=template, added=THINKING_TOKENS)
    (folder / "config.json").write_text('{"model_type": "qwen2", "max_position_embeddings": 512}')
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize("template", [QWEN3_LIKE, R1_LIKE])
@pytest.mark.parametrize(
    ("message", "finish", "said"),
    [
        ({"content": "<think>\nhm\n</think>\n\n11"}, "stop", SplitReply("hm", "11")),
        ({"content": "hm\n</think>\n\n11"}, "stop", SplitReply("hm", "11")),
        ({"content": "<think>\nhm"}, "length", SplitReply("hm", "", False)),
        ({"content": "\n\n11", "reasoning_content": "hm"}, "stop", SplitReply("hm", "11")),
        ({"content": "11", "reasoning": "\nhm\n", "reasoning_content": None}, "stop", SplitReply("hm", "11")),
        ({"content": None, "reasoning_content": "hm"}, "length", SplitReply("hm", "", False)),
        ({"content": ""}, "stop", SplitReply("", "")),
    ],
)
def test_thinking_at_an_endpoint_is_separated_from_the_answer(
    tmp_path: Path,
    ask: Callable[..., SplitReply],
    template: str,
    message: dict[str, Any],
    finish: str,
    said: SplitReply,
) -> None:
    assert ask(base_with(tmp_path / "base", template), message, finish) == said


def test_thinking_that_the_prompt_opens_is_not_part_of_the_answer(
    tmp_path: Path, ask: Callable[..., SplitReply]
) -> None:
    cut = {"content": "It may be 11"}
    assert ask(base_with(tmp_path / "r1", R1_LIKE), cut, "length") == SplitReply("It may be 11", "", False)
    assert ask(base_with(tmp_path / "qwen3", QWEN3_LIKE), cut, "length") == SplitReply("", "It may be 11")
    assert ask(tmp_path / "elsewhere", cut, "length") == SplitReply("", "It may be 11")


def test_the_endpoint_receives_the_chat_template_arguments(
    tmp_path: Path, ask: Callable[..., SplitReply], proxy: Proxy
) -> None:
    base = base_with(tmp_path / "base", QWEN3_LIKE)
    ask(base, {"content": "11"}, template_kwargs={"enable_thinking": False})
    ask(base, {"content": "11"})
    first, second = (seen.body for seen in proxy.chats)
    assert first == {**second, "chat_template_kwargs": {"enable_thinking": False}}


def recipe(base: Path, **sections: Any) -> Recipe:
    """Models at an endpoint, which does not check their adapters."""
    models = [{"name": name, "adapter": f"/adapters/{name}"} for name in "abc"]
    tree = {
        "name": "endpoint",
        "pool": {"base": str(base), "models": models},
        "data": {"train": "/x.jsonl"},
        "engine": {"kind": "api", "api": {"url": "http://127.0.0.1:8000/v1", "dialect": "vllm"}},
        "generation": {"max_new_tokens": 100},
        **sections,
        "chat": {"thinking_tokens": 200, **sections.get("chat", {})},
    }
    return validated(Recipe, tree, "recipe")


ASKED = [("q", (Message("user", "?"),))]


def test_a_judge_that_thinks_at_an_endpoint_is_not_constrained(tmp_path: Path) -> None:
    base = base_with(tmp_path / "base", QWEN3_LIKE)
    with pytest.raises(
        SpartaError,
        match=rf"judging\.constrained requires the judge's output format from the first token on, but models on base {base} think first",
    ):
        check_prompts(recipe(base), ASKED)
    with pytest.raises(SpartaError, match=r"judging\.mode expected requires a label from the first token on"):
        check_prompts(recipe(base, judging={"mode": "expected"}), ASKED)
    check_prompts(recipe(base, judging={"constrained": False}), ASKED)
    check_prompts(recipe(base, chat={"template_kwargs": {"enable_thinking": False}}), ASKED)
    check_prompts(recipe(base, engine={"kind": "hf"}), ASKED)


def test_a_template_that_prints_the_date_is_refused_for_an_endpoint(tmp_path: Path) -> None:
    base = base_with(tmp_path / "base", LLAMA_LIKE)
    with pytest.raises(
        SpartaError,
        match=r"prints today's date, and an endpoint would print its own: set a date in chat\.template_kwargs",
    ):
        check_prompts(recipe(base), ASKED)
    check_prompts(recipe(base, chat={"template_kwargs": {"date_string": "28 Nov 2026"}}), ASKED)
    check_prompts(recipe(base, engine={"kind": "hf"}), ASKED)


def test_openais_protocol_cannot_pass_chat_template_arguments(tmp_path: Path) -> None:
    openai = {"kind": "api", "api": {"url": "http://127.0.0.1:8000/v1"}}
    with pytest.raises(
        SpartaError, match=r"chat\.template_kwargs cannot be sent .*: set engine\.api\.dialect to vllm"
    ):
        recipe(tmp_path, engine=openai, chat={"template_kwargs": {"enable_thinking": False}})
    judge = {"base": "m", "engine": openai, "chat": {"template_kwargs": {"enable_thinking": False}}}
    with pytest.raises(
        SpartaError,
        match=r"evaluation\.judge\.chat\.template_kwargs cannot .* set evaluation\.judge\.engine\.api\.dialect",
    ):
        recipe(tmp_path, evaluation={"judge": judge})


def test_thinking_and_an_answer_must_leave_room_for_a_prompt(tmp_path: Path) -> None:
    base = base_with(tmp_path / "base", QWEN3_LIKE)
    local = {"engine": {"kind": "hf"}}
    with pytest.raises(
        SpartaError,
        match=rf"chat\.thinking_tokens, 412\) and an answer \(100\) leave no room .* base {base}, 512 tokens",
    ):
        check_prompts(recipe(base, chat={"thinking_tokens": 412}, **local), ASKED)
    check_prompts(recipe(base, chat={"thinking_tokens": 411}, **local), ASKED)
