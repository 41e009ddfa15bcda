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
        before = run.pool(t - 1)
        learners = self._learners(run, t)
        rows = trained(run, t, learners, Trained)
        members = []
        for name, member in before.items():
            if name in learners:
                adapter = str(iteration.adapter(name).relative_to(run.state.root))
                member = Member(name, member.base, adapter, rows[name].sha256)
            members.append(member)
        files.write_json(iteration.pool, members)
        _note_training(iteration.stats, rows.values(), tokens_of(iteration, self._rows))
        commit(
            iteration,
            parent=files.sha256_file(run.iteration(t - 1).manifest),
            files=[iteration.pool, *(iteration.root / name for name in self._files)],
            rows=self._rows,
        )


def _note_training(path: Path, rows: Collection[Trained], tokens: TokenCounts) -> None:
    stats = files.read_measured(path, IterationStats)
    if stats is None:
        return
    dropped = {row.model: row.dropped for row in rows if row.dropped}
    mean = {row.model: row.mean_loss for row in rows if row.mean_loss is not None}
    files.write_json(
        path, msgspec.structs.replace(stats, mean_losses=mean, dropped_pairs=dropped, tokens=tokens)
    )
