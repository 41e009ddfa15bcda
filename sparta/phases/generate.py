"""Generate: both contestants of every combat answer its prompt (Algorithm 1, line 6)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request
from sparta.engines.label_tokens import check_labels
from sparta.phases import token_costs
from sparta.phases.answering import SampledAnswers
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.pool.members import engine_for, references
from sparta.store.records import Combat, Response, response_key
from sparta.store.run import Run


class ResponseRequests(SampledAnswers[Combat]):
    """Turns contestants of iteration t's combats into requests, and completions into responses. members: M^{t-1} by name."""

    def __init__(self, run: Run, t: int, engine: Engine, members: Mapping[str, ModelRef]) -> None:
        super().__init__(run, t, engine, "combat")
        self._members = members
        # Only judging needs labels, but a recipe that cannot be judged must fail before hours of generation.
        check_labels(
            engine, members.values(), run.recipe.judging, run.recipe.pool.trust_remote_code, run.chat
        )

    def request(self, combat: Combat, name: str) -> Request:
        """The request to the contestant `name` of `combat`."""
        key = response_key(combat.combat_id, name)
        return self._request(key, combat, self._members[name], combat.messages, (combat.combat_id, name))

    def response(self, done: Completion) -> Response:
        """The row for a completion."""
        combat, fields = self._answer(done)
        return Response(combat_id=combat.combat_id, **fields)


class Generate(RowPhase):
    name = "generate"
    rows = Response
    alternatives = ("combat",)

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).responses

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        bases = run.bases
        return [
            WorkItem(response_key(combat.combat_id, model), cost=1.0, group=model, base=bases[model])
            for combat in run.plan(t)
            for model in combat.models
        ]

    def expected(self, run: Run, t: int) -> Expected:
        """Two responses per combat, of half the maximum length."""
        responses, longest = 2 * run.recipe.combats, run.recipe.generation.max_new_tokens
        return Expected(
            f"{responses:,} responses",
            bundles=responses,
            cost=responses * (longest / 2 + token_costs.expected_reading(run)),
            tokens=responses * longest,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        return token_costs.of_responses(run, t, items)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        members = references(run, t - 1)
        engine = engine_for(run, self.engine(run.recipe), members.values())
        requests = ResponseRequests(run, t, engine, members)
        requested = {item.key for item in items}
        contestants = [
            (combat, model)
            for combat in run.plan(t)
            for model in combat.models
            if response_key(combat.combat_id, model) in requested
        ]
        # Keep adapters together, and models of one base.
        contestants.sort(key=lambda pair: (members[pair[1]].base, pair[1]))
        for done in engine.run(Inbox(requests.request(combat, model) for combat, model in contestants)):
            sink.write(requests.response(done))
