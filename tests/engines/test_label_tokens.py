"""Labels of expected judging: one token each after a judge prompt, which may differ from the token of the label alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.engine_contract import ref
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sparta.chat.renderer import Renderer
from sparta.engines.label_tokens import check_labels, labels_of
from sparta.engines.scripted import ByteTokenizer, ScriptedEngine
from sparta.errors import SpartaError
from sparta.recipes.engine import EngineSettings
from sparta.recipes.schema import Judging

CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}{{ '<|im_start|>assistant\\n' }}"


def expected(*labels: str, working: bool = False) -> Judging:
    return Judging(mode="expected", labels=labels, working=working)


def pieces(*merges: tuple[str, str], template: str = CHAT_TEMPLATE) -> Renderer:
    """A renderer whose tokenizer puts a mark before the first word, as those made by SentencePiece do."""
    characters = ["▁", "\n", *map(chr, range(33, 127))]
    symbols = [*characters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=list(merges))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)
    return Renderer(fast, 1000)


def ids_of(renderer: Renderer, judging: Judging) -> tuple[int | None, ...]:
    return tuple(label.token for label in labels_of(renderer, judging))


def token_ids(renderer: Renderer, symbols: Sequence[str]) -> tuple[int, ...]:
    return tuple(renderer.tokenizer.convert_tokens_to_ids(list(symbols)))


@pytest.mark.parametrize("working", [False, True])
def test_the_id_is_the_one_after_the_prompt_not_the_one_alone(working: bool) -> None:
    renderer = pieces(("▁", "4"), ("▁", "5"))
    assert renderer.encode("5") == token_ids(renderer, ["▁5"])
    assert ids_of(renderer, expected("4", "5", working=working)) == token_ids(renderer, "45")


def test_a_label_that_merges_with_the_prompts_last_token_is_refused() -> None:
    renderer = pieces(("\n", "5"))
    with pytest.raises(SpartaError, match="label '5' is not one token after the prompt"):
        ids_of(renderer, expected("4", "5"))


def test_after_reasoning_the_label_follows_a_line_break() -> None:
    renderer = pieces(("\n", "5"), template="{{ messages[0]['content'] }}<|im_start|>assistant:")
    assert ids_of(renderer, expected("4", "5")) == token_ids(renderer, "45")
    with pytest.raises(SpartaError, match="label '5' is not one token"):
        ids_of(renderer, expected("4", "5", working=True))


def test_labels_must_be_one_token_each_and_different() -> None:
    renderer = Renderer(ByteTokenizer(), 1000)
    assert ids_of(renderer, expected("0", "1")) == (48, 49)
    for label in ("10", ""):
        with pytest.raises(SpartaError, match=f"label '{label}' is not one token"):
            ids_of(renderer, expected("9", label))
    with pytest.raises(SpartaError, match="are the same token"):
        ids_of(renderer, expected("1", "1"))


def test_the_base_whose_tokenizer_does_not_know_a_label_is_named() -> None:
    engine = ScriptedEngine(EngineSettings(kind="scripted"))
    members = [ref("ada", Path("one"), None), ref("bea", Path("two"), None)]
    check_labels(engine, members, expected("a", "b"))
    check_labels(engine, members, Judging(labels=("ab", "cd")))
    with pytest.raises(SpartaError, match="base one: judging label 'ab'"):
        check_labels(engine, members, expected("ab", "cd"))
