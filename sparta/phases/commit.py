"""Commit: the pool of the iteration and, last of all, its manifest. From then on the iteration has happened."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.phases.base import Step
from sparta.phases.stats import IterationStats
from sparta.store import files
from sparta.store.manifest import commit
from sparta.store.records import Member, Response, Trained, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards


class Commit(Step):
    name = "commit"
    light = True

    def done(self, run: Run, t: int) -> bool:
        return run.iteration(t).manifest.is_file()

    def execute(self, run: Run, t: int) -> None:
        iteration = run.iteration(t)
        trained = read_shards(iteration.training, Trained)
        members = []
        for name, member in run.pool(t - 1).items():
            folder = iteration.adapter(name)
            if name not in trained or not folder.is_dir():
                raise SpartaError(
                    f"{folder} is missing: training of {name} is not complete, launch the run again to continue it"
                )
            if files.sha256_tree(folder) != trained[name].sha256:
                raise SpartaError(
                    f"{folder} is not what training of {name} made: remove the folder and its line in {iteration.training}, then launch the "
                    "run again to train it anew"
                )
            members.append(
                Member(name, member.base, str(folder.relative_to(run.state.root)), trained[name].sha256)
            )
        files.write_json(iteration.pool, members)
        _note_training(iteration.stats, trained.values())
        commit(
            iteration,
            parent=files.sha256_file(run.iteration(t - 1).manifest),
            files=[
                iteration.plan,
                iteration.combats,
                iteration.preferences,
                iteration.standing,
                iteration.pool,
            ],
            rows={"responses": Response, "votes": Vote, "training": Trained},
        )


def _note_training(path: Path, trained: Iterable[Trained]) -> None:
    rows = list(trained)
    stats = files.read_json(path, IterationStats)
    dropped = {row.model: row.dropped for row in rows if row.dropped}
    mean = {row.model: row.mean_loss for row in rows if row.mean_loss is not None}
    files.write_json(path, msgspec.structs.replace(stats, mean_losses=mean, dropped_pairs=dropped))
