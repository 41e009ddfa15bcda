"""Commit: the pool of the iteration and, last of all, its manifest. From then on the iteration has happened."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from sparta.phases.base import Step
from sparta.phases.train import trained
from sparta.store import files
from sparta.store.manifest import commit
from sparta.store.records import Member, Response, Trained, Vote
from sparta.store.run import Run
from sparta.store.stats import IterationStats


class Commit(Step):
    name = "commit"
    light = True

    def done(self, run: Run, t: int) -> bool:
        return run.iteration(t).manifest.is_file()

    def execute(self, run: Run, t: int) -> None:
        iteration = run.iteration(t)
        before = run.pool(t - 1)
        rows = trained(run, t, before, Trained)
        members = []
        for name, member in before.items():
            adapter = str(iteration.adapter(name).relative_to(run.state.root))
            members.append(Member(name, member.base, adapter, rows[name].sha256))
        files.write_json(iteration.pool, members)
        _note_training(iteration.stats, rows.values())
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


def _note_training(path: Path, rows: Collection[Trained]) -> None:
    stats = files.read_json(path, IterationStats)
    dropped = {row.model: row.dropped for row in rows if row.dropped}
    mean = {row.model: row.mean_loss for row in rows if row.mean_loss is not None}
    files.write_json(path, msgspec.structs.replace(stats, mean_losses=mean, dropped_pairs=dropped))
