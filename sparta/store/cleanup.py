"""Removes what killed writers have left in a run."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from sparta.store.disk import os_errors_named
from sparta.store.layout import StateDir
from sparta.store.temporaries import is_abandoned, is_temporary


def clear_abandoned(state: StateDir) -> None:
    """Remove abandoned temporary files anywhere in the run of `state`: they only take space.

    One that cannot be removed stays for the next launch; it does no harm.
    """
    run = (state.instructions.parent, state.jobs, state.evals, state.calls)
    # The folder may also hold other runs, data sets and models, which are not searched.
    iterations = [state.iteration(t).root for t in state.iterations()]
    for folder in (state.root, *run, *iterations):
        for here, folders, names in os.walk(folder):
            for left in (Path(here, name) for name in (*folders, *names) if is_temporary(name)):
                with suppress(OSError):
                    _clear(left)
            if Path(here) in (state.root, state.code):
                folders.clear()
            folders[:] = [name for name in folders if not is_temporary(name)]


def clear_all_abandoned(folder: Path) -> None:
    """Remove abandoned temporary files anywhere below `folder`, which no later launch looks through. Raises SpartaError where one cannot be removed."""
    with os_errors_named(folder):
        for here, folders, names in os.walk(folder, onerror=_raise):
            for left in (Path(here, name) for name in (*folders, *names) if is_temporary(name)):
                _clear(left)
            folders[:] = [name for name in folders if not is_temporary(name)]


def _clear(path: Path) -> None:
    if not is_abandoned(path):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _raise(error: OSError) -> None:
    raise error
