"""Leaving in the midst of a training without losing what it has done since its last checkpoint.

The handler of a batch job's signal, which knows that this process must go, asks here first: a training that is at work saves the update
that it is at, which takes seconds, and goes then. All of it happens in the main thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_at_work = False
_go: Callable[[], object] | None = None


def postpone(go: Callable[[], object]) -> bool:
    """Whether a training is at work, which will call `go` when it has saved the update it is at. For signal handlers too."""
    global _go
    if _at_work:
        _go = go
    return _at_work


def requested() -> bool:
    """Whether the training at work is to save its update and go."""
    return _go is not None


def stop_here() -> None:
    """Go, if that is asked: what `go` raises ends the training. To be called when an update is saved."""
    if _go is not None:
        _go()


@contextmanager
def postponable() -> Iterator[None]:
    """In this block a training is at work, which looks at `requested` after every update, and calls `stop_here` after every checkpoint."""
    global _at_work, _go
    _at_work = True
    try:
        yield
        stop_here()
    finally:
        _at_work, _go = False, None
