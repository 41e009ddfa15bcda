"""Rows to store, for the tests of the store."""

import subprocess
from collections.abc import Callable

from sparta.store.records import Vote

Start = Callable[..., "subprocess.Popen[str]"]
"""The fixture `start`: code and arguments of a Python process."""


def vote(
    combat: int, judge: str = "m2", score: float | None = 7.0, seconds: float = 0.0, raw: str = "7"
) -> Vote:
    return Vote(f"c{combat:04d}", "m0", judge, score, raw, 1, seconds=seconds)
