"""Tokenizers of bases: renderers and fingerprints, without loading any weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.chat.template_check import require_usable
from sparta.chat.thinking import tags_in
from sparta.engines.weight_files import read_object, weight_files
from sparta.errors import SpartaError, first_line
from sparta.recipes.pool import FETCH, HUB, names_one_of_hub

VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")


def check_base(base: str) -> None:
    """Raises SpartaError unless `base` is a folder with a model in safetensors, a tokenizer and a chat template.

    Reads only file names, headers and JSON, so checking a whole pool is fast.
    """
    folder = Path(base)
    if not (folder / "config.json").is_file():
        hint = f", or name {HUB}{base} and fetch it: {FETCH}" if names_one_of_hub(base) else ""
        raise SpartaError(
            f"base {base} is not a folder with a config.json; correct it in the recipe or put the model there{hint}"
        )
    weight_files(folder)
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise SpartaError(
            f"base {base} has no tokenizer ({', '.join(VOCABULARIES)}): copy the files of its tokenizer there"
        )
    settings = folder / "tokenizer_config.json"
    template = settings.is_file() and read_object(settings, f"base {base}").get("chat_template")
    if not template and not any(map(list, map(folder.glob, _TEMPLATES))):
        raise _cannot_chat(base)


def may_think(base: str, chat: ChatOptions) -> bool:
    """Whether models on this base may think, according to the recipe or else the chat template in the folder `base`."""
    if chat.thinking != "auto":
        return chat.thinking != "off"
    settings = Path(base) / "tokenizer_config.json"
    templates = [path.read_text(encoding="utf-8") for path in Path(base).glob(_TEMPLATES[0])]
    if settings.is_file():
        templates.append(str(read_object(settings, f"base {base}").get("chat_template") or ""))
    return any(map(tags_in, templates))


def tokens_of_thinking(base: str, chat: ChatOptions) -> int:
    """The most tokens that a model on this base may spend on thinking, for estimates: 0 if the template's arguments turn thinking off."""
    turned_off = any(value is False for name, value in chat.template_kwargs.items() if "think" in name)
    return chat.thinking_tokens if may_think(base, chat) and not turned_off else 0


def _cannot_chat(base: str) -> SpartaError:
    return SpartaError(
        f"base {base} has no chat template: use an instruction-tuned base, or add one to its tokenizer"
    )


def load_renderer(
    base: str, context_length: int, trust_remote_code: bool, chat: ChatOptions = UNDATED
) -> Renderer:
    """The renderer of the base in the folder `base`; its context is `context_length` tokens, or the base's maximum if that is less."""
    from transformers import AutoConfig, AutoTokenizer

    check_base(base)
    try:
        config: Any = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
        tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise SpartaError(f"the tokenizer of base {base} cannot be loaded: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise _cannot_chat(base)
    require_usable(tokenizer)
    allowed = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Renderer(tokenizer, min(context_length, allowed) if allowed else context_length, chat)


def fingerprint(tokenizer: Any) -> str:
    """A hash, 16 hex digits, of all that gives token ids their meaning: vocabulary, added tokens and chat template."""
    return _digest([*_vocabulary(tokenizer), tokenizer.chat_template])


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """`fingerprint` without the chat template."""
    return _digest(_vocabulary(tokenizer))


def _vocabulary(tokenizer: Any) -> list[Any]:
    added = {index: (token.content, token.special) for index, token in tokenizer.added_tokens_decoder.items()}
    return [sorted(tokenizer.get_vocab().items()), sorted(added.items())]


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


class Tokenizers:
    """Renderers and fingerprints of the bases that an engine serves; each tokenizer is loaded once."""

    def __init__(self, context_length: int, trust_remote_code: bool, chat: ChatOptions) -> None:
        self._context_length = context_length
        self._trust_remote_code = trust_remote_code
        self._chat = chat
        self._renderers: dict[str, Renderer] = {}
        self._fingerprints: dict[str, str] = {}

    def renderer(self, base: str) -> Renderer:
        """The renderer of `base`. Raises SpartaError if the base is missing or has no chat template."""
        if base not in self._renderers:
            self._renderers[base] = load_renderer(
                base, self._context_length, self._trust_remote_code, self._chat
            )
        return self._renderers[base]

    def fingerprint(self, base: str) -> str:
        """See `fingerprint`."""
        if base not in self._fingerprints:
            self._fingerprints[base] = fingerprint(self.renderer(base).tokenizer)
        return self._fingerprints[base]
