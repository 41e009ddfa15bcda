"""Turns become the ids of the template, training targets are the answers alone, and special tokens spelled in a turn stay text."""

import re
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from support.chat_templates import GEMMA_LIKE, LLAMA_LIKE, PARTS, WITHOUT_SYSTEM

from sparta.chat.options import ChatOptions
from sparta.chat.renderer import Renderer
from sparta.chat.sft_examples import sft_examples
from sparta.chat.template import Message
from sparta.engines.tokenizers import load_renderer
from sparta.errors import SpartaError

CHAT = [
    Message("system", "Be brief."),
    Message("user", "What is 4 + 7?\n"),
    Message("assistant", "\n\n11, the sum"),
    Message("user", "And 10 + 10?"),
    Message("assistant", "20"),
]


@pytest.fixture(scope="module")
def renderer(tiny_base: Path) -> Renderer:
    return load_renderer(str(tiny_base), 512, trust_remote_code=False)


def target_parts(renderer: Renderer, messages: list[Message]) -> tuple[str, list[str]]:
    """The whole text of a training sequence, and its target spans, with special tokens."""
    [(ids, is_target)] = sft_examples(renderer, messages)
    assert len(ids) == len(is_target)
    whole = renderer.tokenizer.decode(ids, skip_special_tokens=False)
    parts = []
    for at, (token, target) in enumerate(zip(ids, is_target, strict=True)):
        if target:
            if not is_target[at - 1]:
                parts.append([])
            parts[-1].append(token)
    return whole, [renderer.tokenizer.decode(part, skip_special_tokens=False) for part in parts]


def test_the_targets_are_the_answers_and_their_end_tokens_alone(renderer: Renderer) -> None:
    whole, parts = target_parts(renderer, CHAT)
    turns = [{"role": message.role, "content": message.content} for message in CHAT]
    assert whole + "\n" == renderer.tokenizer.apply_chat_template(turns, tokenize=False)
    assert parts == ["\n\n11, the sum<|im_end|>", "20<|im_end|>"]


@pytest.mark.parametrize("at", [2, 4])
def test_the_context_of_an_answer_is_its_prompt_token_for_token(renderer: Renderer, at: int) -> None:
    chat = [Message(turn.role, turn.content.strip()) for turn in CHAT[: at + 1]]
    [(ids, _)] = sft_examples(renderer, chat)
    asked = renderer.combat(chat[:at]).token_ids or ()
    assert ids == asked + renderer.completion(chat[at].content, finished=True)


def test_an_answer_keeps_its_tokens_after_any_prompt(renderer: Renderer) -> None:
    chat = [Message("user", "x"), Message("assistant", "\n.\n")]
    asked = renderer.combat(chat[:1]).token_ids or ()
    assert renderer.tokenizer.decode(asked).endswith("\n")
    assert sft_examples(renderer, chat)[0].token_ids == asked + renderer.completion("\n.\n", finished=True)


def test_a_training_sequence_ends_with_the_last_answer(renderer: Renderer) -> None:
    assert sft_examples(renderer, [*CHAT, Message("user", "Thanks")]) == sft_examples(renderer, CHAT)
    with pytest.raises(SpartaError, match=r"has no turn of the assistant.*'Be brief\.'"):
        sft_examples(renderer, CHAT[:2])
    with pytest.raises(SpartaError, match="begins with a turn of the assistant"):
        sft_examples(renderer, CHAT[2:])


def test_special_tokens_that_a_text_spells_stay_text(renderer: Renderer) -> None:
    chat = [
        Message("user", "Say <|im_end|> or <|im_<|endoftext|>end|>"),
        Message("assistant", "<|im_end|>\n<|im_start|>user"),
        Message("user", "<|im_start|>"),
        Message("assistant", "ok"),
    ]
    plain = [Message(turn.role, "a") for turn in chat]
    whole, parts = target_parts(renderer, chat)
    turns = [{"role": message.role, "content": message.content} for message in chat]
    assert whole + "\n" == renderer.tokenizer.apply_chat_template(turns, tokenize=False)
    assert parts == ["<|im_end|>\n<|im_start|>user<|im_end|>", "ok<|im_end|>"]
    for made, harmless in (
        (sft_examples(renderer, chat)[0].token_ids, sft_examples(renderer, plain)[0].token_ids),
        (renderer.combat(chat[:3]).token_ids or (), renderer.combat(plain[:3]).token_ids or ()),
    ):
        specials = [[token for token in ids if token in renderer.special_ids] for ids in (made, harmless)]
        assert specials[0] == specials[1]


TEMPLATES = {
    "trims": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "pads": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' <|im_end|>' }}"
        "{% else %}{{ '[' + m.content + ']' }}{% endif %}{% endfor %}"
    ),
    "leaves answers out": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content if m.role != 'assistant' or loop.last }}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "never ends": "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    "refuses a role": "{{ raise_exception('System role not supported') }}",
    "escapes": "{% for m in messages %}{{ m.role + ': ' + (m.content | tojson) }}{% endfor %}",
    "cannot count": "{{ messages[0].content + 1 }}",
    "has no end": "{% for m in messages %}{{ m.content }}\n{% if %}",
    "parts": PARTS,
    "without system": WITHOUT_SYSTEM,
    "like Gemma": GEMMA_LIKE,
}


@pytest.fixture
def with_template(tiny_base: Path) -> Callable[[str], Renderer]:
    def make(name: str) -> Renderer:
        renderer = load_renderer(str(tiny_base), 512, trust_remote_code=False)
        renderer.tokenizer.chat_template = TEMPLATES[name]
        return renderer

    return make


def test_space_at_the_ends_of_an_answer_is_as_the_template_has_it(
    with_template: Callable[[str], Renderer],
) -> None:
    assert target_parts(with_template("trims"), CHAT)[1] == ["11, the sum<|im_end|>", "20<|im_end|>"]
    chat = [Message(turn.role, turn.content.strip()) for turn in CHAT]
    assert target_parts(with_template("pads"), chat)[1] == [" 11, the sum <|im_end|>", " 20 <|im_end|>"]


@pytest.mark.parametrize("name", ["leaves answers out", "never ends"])
def test_a_template_that_changes_answers_is_named_with_its_base(
    with_template: Callable[[str], Renderer], tiny_base: Path, name: str
) -> None:
    with pytest.raises(
        SpartaError,
        match=f"base {re.escape(str(tiny_base))} (does not keep the answers|leaves out the assistant)",
    ):
        sft_examples(with_template(name), CHAT)


def test_a_template_that_refuses_a_role_is_reported(with_template: Callable[[str], Renderer]) -> None:
    renderer = with_template("refuses a role")
    for ids in (renderer.combat, partial(sft_examples, renderer)):
        with pytest.raises(SpartaError, match=r"roles system.*'Be brief\.'.*System role not supported"):
            ids(CHAT)


def test_a_template_that_prints_the_day_prints_that_of_the_run(tiny_base: Path) -> None:
    def asked(options: ChatOptions) -> str:
        renderer = load_renderer(str(tiny_base), 512, False, options)
        renderer.tokenizer.chat_template = LLAMA_LIKE
        ids = renderer.combat(CHAT[:2]).token_ids
        assert sft_examples(renderer, CHAT[:3])[0].token_ids[: len(ids or ())] == ids
        return str(renderer.tokenizer.decode(ids))

    first = asked(ChatOptions(today=date(2001, 2, 3)))
    assert "Today Date: 03 Feb 2001\nBe brief." in first
    assert asked(ChatOptions(today=date(2001, 2, 4))) == first.replace("03 Feb", "04 Feb")
    with pytest.raises(SpartaError, match=f"base {re.escape(str(tiny_base))} prints today's date"):
        asked(ChatOptions())


@pytest.mark.parametrize(
    ("name", "roles", "said"),
    [
        (
            "parts",
            "user",
            "expects content as a list of parts, .* leaves out the user turn, number 1 of .* roles user: use",
        ),
        (
            "without system",
            "system user",
            "leaves out the system turn, number 1 of a prompt with the roles system, user: ",
        ),
        ("escapes", "user", "leaves out the user turn, number 1 of a prompt with the roles user: "),
        (
            "like Gemma",
            "system user",
            r"refuses a prompt with the roles system, user \(System role not supported\): ",
        ),
        (
            "like Gemma",
            "user user",
            r"refuses a prompt with the roles user, user \(Conversation roles must alternate\): ",
        ),
        ("cannot count", "user", r"fails on a prompt with the roles user \(TypeError: can only concatenate"),
        (
            "has no end",
            "user",
            r"has a syntax error in line 2 \(Expected an expression.*\): correct chat_template.jinja",
        ),
    ],
)
def test_a_template_that_would_not_show_every_turn_is_refused_with_base_and_turn(
    with_template: Callable[[str], Renderer], tiny_base: Path, name: str, roles: str, said: str
) -> None:
    with pytest.raises(SpartaError, match=f"the chat template of base {re.escape(str(tiny_base))} {said}"):
        with_template(name).check_roles(roles.split())


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("trims", "system user assistant user"),
        ("without system", "user user"),
        ("like Gemma", "user assistant user"),
    ],
)
def test_a_template_that_shows_every_turn_is_fine(
    with_template: Callable[[str], Renderer], name: str, roles: str
) -> None:
    with_template(name).check_roles(roles.split())


def test_a_turn_that_is_left_out_of_one_prompt_alone_is_no_prompt(
    with_template: Callable[[str], Renderer],
) -> None:
    renderer = with_template("like Gemma")
    renderer.tokenizer.chat_template = WITHOUT_SYSTEM.replace("m.role != 'system'", "m.content != 'secret'")
    renderer.check_roles(["user"])
    with pytest.raises(SpartaError, match="leaves out the user turn, number 1 of .* that begins 'secret': "):
        renderer.combat([Message("user", "secret")])
