"""Launchers by the name that the recipe and every attempt give them."""

from sparta.cluster.base import Launcher
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.errors import SpartaError
from sparta.store.run import Run


def launcher_named(name: str, run: Run) -> Launcher:
    """The launcher called `name`. Raises SpartaError where this version has none."""
    if name == Inline.name:
        return Inline(run)
    if name == Local.name:
        return Local(run)
    raise SpartaError(f"there is no cluster {name}: the state was written by another version of the suite")
