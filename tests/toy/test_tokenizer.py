"""The toy tokenizer: single characters, short judge prompts, text that survives the way there and back."""

import string

import pytest
from transformers import AutoTokenizer

from sparta.chat.judge_prompts import judge_content, judging_instruction
from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.toy import BASE
from sparta.toy.curriculum import Batcher
from sparta.toy.family import items, slip_on
from sparta.toy.tokenizer import CONTEXT_LENGTH, END, LABELS, PAD, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return Renderer(tokenizer, CONTEXT_LENGTH)


def test_the_committed_tokenizer_is_the_one_that_the_code_writes(tmp_path):
    write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (BASE / name).read_text()


def test_end_and_padding_are_different_tokens(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


@pytest.mark.parametrize("mode", ["text", "expected"])
@pytest.mark.parametrize("working", [True, False])
def test_judge_prompts_are_short(renderer, mode, working):
    instruction = judging_instruction(mode, working, LABELS)
    for item in items("validation", 50, seed=0):
        prompt = renderer.judging(
            [Message("user", item.question)], item.answer, instruction=instruction, max_new_tokens=16
        )
        assert len(prompt.token_ids) <= 32
        assert prompt.cut == 0


def test_every_label_is_one_token_wherever_it_stands(renderer):
    alone = [renderer.encode(label) for label in LABELS]
    assert all(len(ids) == 1 for ids in alone)
    for label, ids in zip(LABELS, alone, strict=True):
        assert renderer.encode(f"+085\n{label}")[-1:] == ids


def test_answers_and_judgements_survive_encoding_and_decoding(renderer):
    for item in items("validation", 200, seed=0):
        for text in (item.answer, slip_on(item.question), f'{item.answer}\n{{"score": 9}}'):
            ids = renderer.encode(text)
            assert renderer.decode(ids) == text
            assert renderer.encode(renderer.decode(ids)) == ids
        assert len(renderer.encode(item.answer)) == len(item.answer)


@pytest.mark.parametrize(
    "text", ["", " +085 \n", "  two  spaces , and . ", "héllo\t日本", string.printable, f"a{END}b"]
)
def test_any_text_survives_and_spells_out_special_tokens(renderer, tokenizer, text):
    ids = renderer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids


def test_training_renders_prompts_as_the_renderer_does(renderer, tokenizer):
    batcher = Batcher(tokenizer)
    instruction = judging_instruction("text", True, LABELS)
    for item in items("train", 30, seed=0):
        messages = [Message("user", item.question)]
        combat = renderer.combat(messages)
        judging = renderer.judging(messages, item.answer, instruction=instruction, max_new_tokens=16)
        contents = [item.question, judge_content(item.question, item.answer, instruction)]
        assert batcher.prompts(contents) == [list(combat.token_ids), list(judging.token_ids)]
