"""What trainings of an iteration made, as it is committed: whole, and nothing else."""

from collections.abc import Iterable
from typing import TypeVar

from sparta.errors import SpartaError
from sparta.store import files
from sparta.store.records import Taught, Trained
from sparta.store.run import Run
from sparta.store.shards import read_shards

_Row = TypeVar("_Row", Taught, Trained)


def trained(run: Run, t: int, names: Iterable[str], kind: type[_Row]) -> dict[str, _Row]:
    """The rows of iteration t's trainings of the models `names`. Raises SpartaError where one is missing, or its adapter is not what it made."""
    iteration = run.iteration(t)
    rows = read_shards(iteration.training, kind)
    for name in names:
        folder = iteration.adapter(name)
        if name not in rows or not folder.is_dir():
            raise SpartaError(
                f"{folder} is missing: training of {name} is not complete, launch the run again to continue it"
            )
        if files.sha256_tree(folder) != rows[name].sha256:
            raise SpartaError(
                f"{folder} is not what training of {name} made: remove the folder and its line in {iteration.training}, then launch the run "
                "again to train it anew"
            )
    return rows
