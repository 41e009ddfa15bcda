"""How many tokens a text comes to, counted by its tokenizer or estimated by its characters."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

CHARACTERS_A_TOKEN = 4.0
FRAME_TOKENS = 8.0
"""What a chat template adds to a prompt, about."""

Count = Callable[[str], float]
"""Tokens of a text."""


@cache
def counter_of(base: str) -> Count:
    """What counts tokens as the base in the folder `base` does, special tokens of a template apart."""
    path = Path(base) / "tokenizer.json"
    if not path.is_file():
        return by_characters
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    # One text after the other: a batch is encoded by threads, after which a driver's children could not be forked without a warning.
    return lambda text: float(len(tokenizer.encode(text, add_special_tokens=False).ids))


def by_characters(text: str) -> float:
    return len(text) / CHARACTERS_A_TOKEN
