"""Models that think: real Qwen2 files whose next token depends only on the last one, by a table, so the form of their output is known."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support import tiny_models
from support.chat_templates import THINKING_TOKENS

FOLLOWS: Mapping[str, Mapping[str, float]] = {
    "\n": {"<think>": 0.8, "b": 0.2},
    "<think>": {"t": 1.0},
    "t": {"t": 0.7, "h": 0.2, "</think>": 0.1},
    "h": {"t": 1.0},
    "</think>": {"\n\n": 1.0},
    "\n\n": {"b": 0.5, "c": 0.5},
    "b": {"b": 0.5, "c": 0.3, tiny_models.END: 0.2},
    "c": {"b": 0.6, "c": 0.3, tiny_models.END: 0.1},
    "}": {tiny_models.END: 1.0},
}
"""After a prompt's line break mostly a thought of t and h, then an answer of b and c; whatever a form asks for is as likely as anything."""


def make_base(
    folder: Path, template: str, follows: Mapping[str, Mapping[str, float]] = FOLLOWS, special: bool = False
) -> Path:
    """Write a base with this chat template, `<think>` and `</think>` among its tokens, `special` ones or not; return `folder`.

    Its one layer adds nothing, so the last token's one-hot embedding goes straight to the output.
    """
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    added = dict.fromkeys(THINKING_TOKENS, special)
    tokens = tiny_models.make_tokenizer(folder, template=template, added=added) + len(added)
    width = 64 * math.ceil(tokens / 64)
    config = Qwen2Config(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokens - len(THINKING_TOKENS) - 2,
        pad_token_id=tokens - len(THINKING_TOKENS) - 1,
    )
    model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        model.model.embed_tokens.weight[torch.arange(tokens), torch.arange(tokens)] = 1.0
        for before, after in follows.items():
            column = model.lm_head.weight[:, _token(tokenizer, before)]
            column.fill_(-20 / math.sqrt(width))
            for text, share in after.items():
                column[_token(tokenizer, text)] = math.log(share) / math.sqrt(width)
    model.save_pretrained(folder)
    return folder


def pool_on(
    folder: Path, template: str, names: Sequence[str] = ("ada", "bea", "cem", "dov")
) -> dict[str, Any]:
    """The section `pool` of a recipe: members with random adapters on a base of `make_base`."""
    base = make_base(folder / "base", template)
    adapters = {
        name: tiny_models.make_adapter(folder / name, base, seed=seed) for seed, name in enumerate(names)
    }
    models = [{"name": name, "adapter": str(path)} for name, path in adapters.items()]
    return {"base": str(base), "models": models}


def _token(tokenizer: Any, text: str) -> int:
    [token] = tokenizer.encode(text, add_special_tokens=False)
    return int(token)
