"""The last look before something is written into a state that this process drives: a driver that has lost its lock writes nothing any more.

Whoever holds the lock of a run guards its state. Everything that puts files, folders or rows in their place asks here right before. Tasks in
processes of their own hold no lock and guard nothing: they are to outlive their driver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Guard:
    """What lies below `root`, but for `free` and what is below that, is written only after `check`, which raises where it may not be."""

    root: Path
    free: Path
    check: Callable[[], None]

    def covers(self, path: Path) -> bool:
        return path.is_relative_to(self.root) and not path.is_relative_to(self.free)


_guards: list[Guard] = []


def put_up(guard: Guard) -> None:
    _guards.append(guard)


def take_down(guard: Guard) -> None:
    if guard in _guards:
        _guards.remove(guard)


def require_ours(path: Path) -> None:
    """Raises what the guard raises where `path` lies in a state that this process drove and drives no longer."""
    if _guards:
        path = path.absolute()
        for guard in tuple(_guards):
            if guard.covers(path):
                guard.check()
