"""Tokenizers of bases: renderers and fingerprints, without loading any weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.prompts import Renderer


def check_base(base: str) -> None:
    """Raises SpartaError unless `base` is a folder with a model in safetensors, or reads like a hub id."""
    folder = Path(base)
    if not folder.is_dir():
        if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1:
            raise SpartaError(
                f"base {base}: there is no such folder; correct the base in the recipe or put the model there"
            )
        return
    if not (folder / "config.json").is_file():
        raise SpartaError(
            f"base {base} has no config.json: it is not a model folder, correct the base in the recipe"
        )
    if not any(folder.glob("*.safetensors")):
        raise SpartaError(
            f"base {base} has no *.safetensors file: weights in other formats are not read, "
            "convert them with save_pretrained"
        )


def load_renderer(base: str, context_length: int, trust_remote_code: bool) -> Renderer:
    """The renderer of `base`; its context is `context_length`, or less where the base allows less."""
    from transformers import AutoConfig, AutoTokenizer

    check_base(base)
    try:
        config: Any = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
        tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise SpartaError(f"the tokenizer of base {base} cannot be loaded: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise SpartaError(
            f"base {base} has no chat template: use an instruction-tuned base, or add one to its tokenizer"
        )
    allowed = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Renderer(tokenizer, min(context_length, allowed) if allowed else context_length)


def fingerprint(tokenizer: Any) -> str:
    """16 hex digits of what gives token ids their meaning: vocabulary, added tokens and chat template."""
    added = {index: (token.content, token.special) for index, token in tokenizer.added_tokens_decoder.items()}
    content = [sorted(tokenizer.get_vocab().items()), sorted(added.items()), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def first_line(error: BaseException) -> str:
    """What an error of a library says first, for the end of a sentence of ours."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
