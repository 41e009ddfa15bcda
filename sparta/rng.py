"""Independent random streams, each named by its purpose.

A stream depends only on its name, never on earlier draws: the prompts of iteration 5 are the same whether or not iterations 1 to 4 ran
in this process. A name is the run's seed followed by any integers and strings, e.g. `(seed, t, "prompts")`.
"""

import hashlib
import random


def seed_of(*name: int | str) -> int:
    """The 63-bit seed of the stream called `name`; equal names give equal seeds on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in name)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*name: int | str) -> random.Random:
    """A new generator at the start of the stream called `name`."""
    return random.Random(seed_of(*name))
