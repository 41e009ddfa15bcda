"""Generate: both contestants of every combat answer its prompt (Algorithm 1, line 6)."""

from collections.abc import Sequence
from pathlib import Path

from sparta.engines.base import Inbox
from sparta.phases import costs
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.contest import Contest
from sparta.phases.pool import engine_for, references
from sparta.store.records import Response, response_key
from sparta.store.run import Run


class Generate(RowPhase):
    name = "generate"
    rows = Response
    rivals = ("combat",)

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).responses

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        bases = run.bases
        return [
            WorkItem(response_key(combat.combat_id, model), cost=1.0, group=model, base=bases[model])
            for combat in run.plan(t)
            for model in combat.models
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        return costs.of_responses(run, t, items)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        members = references(run, t - 1)
        engine = engine_for(run, self.engine(run.recipe), members.values())
        contest = Contest(run, t, engine, members)
        wanted = {item.key for item in items}
        duels = [
            (combat, model)
            for combat in run.plan(t)
            for model in combat.models
            if response_key(combat.combat_id, model) in wanted
        ]
        # Adapters stay together, and so do models of one base.
        duels.sort(key=lambda duel: (members[duel[1]].base, duel[1]))
        for done in engine.run(Inbox(contest.request(combat, model) for combat, model in duels)):
            sink.write(contest.response(done))
