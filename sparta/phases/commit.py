"""Commit: writes the iteration's pool and, last, its manifest, which commits the iteration."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from sparta.phases.base import Step
from sparta.phases.token_counts import tokens_of
from sparta.phases.train import Learners, everyone, trained
from sparta.store import files
from sparta.store.disk import present
from sparta.store.manifest import commit
from sparta.store.records import Member, Response, Row, Trained, Vote
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TokenCounts

FILES = ("plan.jsonl", "combats.jsonl", "preferences.jsonl", "standing.json")
ROWS: Mapping[str, type[Row]] = {"responses": Response, "votes": Vote, "training": Trained}
"""The contents of an iteration besides its pool: whole files, and folders of shards with their row types."""


class Commit(Step):
    """learners: see `Learners`. files, rows: the contents of an iteration of the method."""

    name = "commit"
    light = True
    derives = False

    def __init__(
        self,
        learners: Learners = everyone,
        files: Sequence[str] = FILES,
        rows: Mapping[str, type[Row]] = ROWS,
    ) -> None:
        self._learners, self._files, self._rows = learners, files, rows

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).manifest)

    def execute(self, run: Run, t: int) -> None:
        iteration = run.iteration(t)
        rows = trained(run, t, self._learners(run, t), Trained)
        files.write_json(iteration.pool, pool_after(run, t, rows))
        _note_training(iteration.stats, rows.values(), tokens_of(iteration, self._rows))
        commit(
            iteration,
            parent=files.sha256_file(run.iteration(t - 1).manifest),
            files=[iteration.pool, *(iteration.root / name for name in self._files)],
            rows=self._rows,
        )


def pool_after(run: Run, t: int, rows: Mapping[str, Trained]) -> list[Member]:
    """M^t: that of the iteration before, with the adapters of the members that learned. rows: of their trainings, by name."""
    members = []
    for name, member in run.pool(t - 1).items():
        if name in rows:
            adapter = str(run.iteration(t).adapter(name).relative_to(run.state.root))
            member = Member(name, member.base, adapter, rows[name].sha256)
        members.append(member)
    return members


def _note_training(path: Path, rows: Collection[Trained], tokens: TokenCounts) -> None:
    stats = files.read_measured(path, IterationStats)
    if stats is None:
        return
    dropped = {row.model: row.dropped for row in rows if row.dropped}
    mean = {row.model: row.mean_loss for row in rows if row.mean_loss is not None}
    files.write_json(
        path, msgspec.structs.replace(stats, mean_losses=mean, dropped_pairs=dropped, tokens=tokens)
    )
