"""The last check before each write into a state that this process drives: a driver that has lost its lock must not write.

The holder of a run's lock installs a guard for its state. Everything that writes files, folders or rows calls `require_ours` right before. Tasks
in other processes hold no lock and have no guard, because they may outlive their driver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Guard:
    """Paths below `root`, except those at or below `free`, may be written only if `check` does not raise."""

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
    """Raises the guard's error where `path` belongs to a state whose lock this process has lost."""
    if _guards:
        path = path.absolute()
        for guard in tuple(_guards):
            if guard.covers(path):
                guard.check()
