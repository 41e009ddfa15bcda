"""pruned.json: adapters that were removed on purpose from committed iterations, so that they do not count as lost. Its entries go where their
iterations go: one that outlived them would hide that weights made again are lost.

Scores, answers, rows and logs stay. Removing is for good: only a run with the same recipe makes the weights again.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir


class Pruned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """files: SHA-256 of each removed file by its path in the state. why: who removed them, for messages."""

    why: str
    files: dict[str, str]


def pruned_file(state: StateDir) -> Path:
    return state.root / "pruned.json"


def read_pruned(state: StateDir) -> Pruned:
    """What was removed; empty if nothing was."""
    path = pruned_file(state)
    return files.read_json(path, Pruned) if present(path) else Pruned("", {})


def split_after(removed: Pruned, state: StateDir, t: int) -> tuple[Pruned, Pruned]:
    """What of `removed` belongs to iterations up to t, and the rest."""
    kept = {state.iteration(n).root.name for n in range(t + 1)}
    upto = {path: sha256 for path, sha256 in removed.files.items() if path.partition("/")[0] in kept}
    later = {path: sha256 for path, sha256 in removed.files.items() if path not in upto}
    return Pruned(removed.why, upto), Pruned(removed.why, later)


def prune(state: StateDir, removable: Collection[Path], why: str) -> int:
    """Remove the files `removable` of committed iterations, and note it first. Returns the bytes that they had. Requires the run's lock.

    A command that was killed in between leaves files that are noted and still there: they stay valid, and the next call removes them.
    """
    before = read_pruned(state)
    there = [path for path in removable if present(path)]
    noted = {str(path.relative_to(state.root)): files.sha256_file(path) for path in there}
    if not noted:
        return 0
    files.write_json(pruned_file(state), Pruned(why, {**before.files, **noted}))
    size = 0
    for path in there:
        with files.os_errors_named(path):
            size += path.stat().st_size
        files.remove(path)
    return size


def require_unpruned(state: StateDir, paths: Collection[Path], what: str) -> None:
    """Raises SpartaError where one of `paths` was removed. what: the models that need them, for the message."""
    removed = read_pruned(state)
    for path in (path for path in paths if path.is_relative_to(state.root)):
        if str(path.relative_to(state.root)) in removed.files and not present(path):
            raise SpartaError(
                f"{path} was removed on purpose ({removed.why}), and {what} needs it: restore it from a copy, or begin a new run with another --state"
            )
