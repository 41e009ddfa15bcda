"""What the task in this process spends its time on: one part at a time, so the seconds of all parts add up to those of the task.

Engines and trainings say when another part begins; they do not know whether a task listens. A part begins a few times a task, never for a request.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

START, WEIGHTS = "start", "start weights"
"""Starting an engine, and the stage of it that loads the base. A part of this kind is named after START: its stages are."""
SET_UP, TRAIN = "train set-up", "train"
"""A training task without its updates, and these. Reading the reference counts as training, because it grows with the pairs."""

Noted = Callable[[Mapping[str, float], str], None]
"""Takes the seconds of each part so far, without the present one, and the name of the present one."""


class _Stopwatch:
    def __init__(self, part: str, noted: Noted) -> None:
        self.seconds: dict[str, float] = {}
        self.part = part
        self._since = time.time()
        self._noted = noted

    def begin(self, part: str, stages: Mapping[str, float] = {}) -> None:
        """The present part ends and `part` begins. stages: seconds of the present one that count for these parts."""
        now = time.time()
        spent = max(0.0, now - self._since)
        # vLLM's own clock may say a little more than ours.
        scale = min(1.0, spent / total) if (total := sum(stages.values())) else 0.0
        shares = {name: seconds * scale for name, seconds in stages.items()}
        for name, seconds in (*shares.items(), (self.part, spent - sum(shares.values()))):
            if seconds > 0:
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.part, self._since = part, now
        self._noted(dict(self.seconds), part)


_running: _Stopwatch | None = None


@contextmanager
def timing(part: str, noted: Noted) -> Iterator[None]:
    """Take the time of a task that lasts as long as the block and begins with `part`. noted: called whenever another part begins."""
    global _running
    before, _running = _running, _Stopwatch(part, noted)
    try:
        yield
    finally:
        _running = before


@contextmanager
def doing(part: str) -> Iterator[dict[str, float]]:
    """Count the block as `part`. What the block puts into the yielded dictionary, seconds by part, counts for those parts instead."""
    watch, stages = _running, dict[str, float]()
    if watch is None:
        yield stages
        return
    before = watch.part
    watch.begin(part)
    try:
        yield stages
    finally:
        watch.begin(before, stages)
