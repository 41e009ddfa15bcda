"""How many tokens a text has, counted with a tokenizer or estimated from its characters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

CHARACTERS_A_TOKEN = 4.0
FRAME_TOKENS = 8.0
"""Tokens that a chat template adds to a prompt, roughly."""

Count = Callable[[str], float]
"""From a text to its number of tokens."""


@cache
def counter_of(base: str) -> Count:
    """Counts tokens with the tokenizer in the folder `base`, without a template's special tokens."""
    path = Path(base) / "tokenizer.json"
    if not path.is_file():
        return by_characters
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    # One text at a time: encoding a batch starts threads, after which forking warns.
    return lambda text: float(len(tokenizer.encode(text, add_special_tokens=False).ids))


def by_characters(text: str) -> float:
    return len(text) / CHARACTERS_A_TOKEN
