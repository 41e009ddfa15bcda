"""Judge: every model that does not duel scores each of the two responses alone, on 1..10 (Algorithm 1, lines 7 to 9)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from sparta.engines.base import Engine, ModelRef
from sparta.errors import SpartaError
from sparta.phases import costs
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.pool import engine_for, references
from sparta.phases.voting import Ballot, Jury
from sparta.store.records import Combat, Response, Vote, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards


class Judge(RowPhase):
    name = "judge"
    rows = Vote
    rivals = ("combat",)

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).votes

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        bases = run.bases
        return [
            WorkItem(
                vote_key(combat.combat_id, model, judge),
                cost=1.0,
                group=judge,
                base=base,
                bundle=f"{combat.combat_id}/{judge}",
            )
            for combat in run.plan(t)
            for judge, base in bases.items()
            if judge not in combat.models
            for model in combat.models
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        return costs.of_votes(run, t, items)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        members = references(run, t - 1)
        engine = engine_for(run, self.engine(run.recipe), members.values())
        jury_of(run, t, engine).ask_all(_ballots(run, t, items, members), sink.write)


def jury_of(run: Run, t: int, engine: Engine) -> Jury:
    """What turns the ballots of iteration t into votes."""
    return Jury(engine, run.recipe.judging, (run.recipe.seed, t, "judge"))


def ballots_on(
    combat: Combat, judge: ModelRef, texts: Mapping[str, str], wanted: Collection[str]
) -> Iterator[Ballot]:
    """The ballots of `judge` on both responses of `combat`, of those whose votes are `wanted`. texts: by response key."""
    for model in combat.models:
        if vote_key(combat.combat_id, model, judge.name) in wanted:
            text = texts[response_key(combat.combat_id, model)]
            yield Ballot(combat.combat_id, model, judge, combat.messages, text)


def _ballots(
    run: Run, t: int, items: Sequence[WorkItem], members: Mapping[str, ModelRef]
) -> Iterator[Ballot]:
    """The ballots of `items`, those of one base and of one judge together and its two votes on a combat next to each other."""
    wanted = {item.key for item in items}
    texts = _texts(run, t, wanted)
    for judge in sorted(members.values(), key=lambda member: member.base):
        for combat in run.plan(t):
            yield from ballots_on(combat, judge, texts, wanted)


def _texts(run: Run, t: int, wanted: Collection[str]) -> dict[str, str]:
    """What is to be judged for the votes `wanted`, by the response's key. Raises SpartaError where a response is not there."""
    folder = run.iteration(t).responses
    judged = {
        response_key(combat.combat_id, model)
        for combat in run.plan(t)
        for model in combat.models
        if any(vote_key(combat.combat_id, model, judge) in wanted for judge in run.models)
    }
    texts = {row.key: row.text for row in iter_shards(folder, Response) if row.key in judged}
    if missing := judged - texts.keys():
        raise SpartaError(
            f"{folder} has no response {min(missing)}: generation is not complete, launch the run again to continue it"
        )
    return texts
