"""Scores responses by their number of characters, without a model, in a row type of its own."""

from collections.abc import Sequence
from pathlib import Path

from sparta.phases.base import ArrayPhase, Expected, Rows, Sink, WorkItem
from sparta.phases.judge import Judge
from sparta.store.records import Response, Vote
from sparta.store.row_schema import Record
from sparta.store.run import Run
from sparta.store.shards import iter_shards


class Length(Record, frozen=True, forbid_unknown_fields=True):
    """lengths/: the sum of the characters of a response."""

    combat_id: str
    model: str
    characters: int

    @property
    def key(self) -> str:
        return f"length:{self.combat_id}/{self.model}"


class Lengths(Rows):
    rows = Length

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).root / "lengths"

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [
            WorkItem(f"length:{combat.combat_id}/{model}", cost=1.0, group="", bundle=combat.combat_id)
            for combat in run.plan(t)
            for model in combat.models
        ]


_LENGTHS, _VOTES = Lengths(), Judge()


class CountWords(ArrayPhase):
    name = "count"
    device = "cpu"

    @property
    def parts(self) -> Sequence[Rows]:
        return [_LENGTHS, _VOTES]

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [*_LENGTHS.work(run, t), *_VOTES.work(run, t)]

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [*_LENGTHS.missing(run, t), *_VOTES.missing(run, t)]

    def expected(self, run: Run, t: int) -> Expected:
        return Expected(f"{2 * run.recipe.combats} lengths", bundles=run.recipe.combats, cost=1.0)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        lengths, votes = sinks
        wanted = {item.key for item in items}
        characters = {
            row.key: sum(map(ord, row.text)) for row in iter_shards(run.iteration(t).responses, Response)
        }
        for combat in run.plan(t):
            for model in combat.models:
                length = characters[f"{combat.combat_id}/{model}"]
                row = Length(combat.combat_id, model, length)
                if row.key in wanted:
                    lengths.write(row)
                for judge in run.models:
                    vote = Vote(combat.combat_id, model, judge, 1.0 + length % 10, str(length), 1)
                    if vote.key in wanted:
                        votes.write(vote)
