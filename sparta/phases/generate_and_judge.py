"""Generating and judging in one phase: one engine does both, and votes on a combat start as soon as both responses exist.

Rows and folders are those of `generate` and `judge`, so a run may switch between the two variants at any time.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sparta.engines.base import Inbox, ModelRef, Request
from sparta.phases.base import ArrayPhase, Expected, RowPhase, Sink, WorkItem
from sparta.phases.generate import Generate, ResponseRequests
from sparta.phases.judge import Judge, VoteRequests, ballots_on, vote_requests
from sparta.phases.undecidable import answer_of, why_undecidable
from sparta.pool.members import engine_for, references
from sparta.recipes import engine as recipe_engine
from sparta.store.records import Combat, Response, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards

_GENERATE, _JUDGE = Generate(), Judge()


class CombatAndJudge(ArrayPhase):
    """For pools on one base, because every task needs all adapters. See `Recipe.fused`."""

    name = "combat"
    alternatives = (_GENERATE.name, _JUDGE.name)

    @property
    def title(self) -> str:
        return "combat+judge"

    @property
    def parts(self) -> Sequence[RowPhase]:
        return [_GENERATE, _JUDGE]

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return _by_combat(run, t, [*_GENERATE.work(run, t), *_JUDGE.work(run, t)])

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return _by_combat(run, t, [*_GENERATE.missing(run, t), *_JUDGE.missing(run, t)])

    def final(self, run: Run, t: int) -> bool:
        return _JUDGE.final(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        generating, judging = _GENERATE.expected(run, t), _JUDGE.expected(run, t)
        return Expected(
            f"{generating.what}, {judging.what}",
            bundles=run.recipe.combats,
            cost=generating.cost + judging.cost,
            tokens=generating.tokens + judging.tokens,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        responses = [item for item in items if _is_response(item)]
        votes = [item for item in items if not _is_response(item)]
        return _by_combat(run, t, [*_GENERATE.priced(run, t, responses), *_JUDGE.priced(run, t, votes)])

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        responses, votes = sinks
        settings = self.engine(run.recipe)
        _Combats(run, t, settings, {item.key for item in items}, responses, votes).run()


class _Combats:
    """One task's combats. missing: keys of the responses and votes to make."""

    def __init__(
        self,
        run: Run,
        t: int,
        settings: recipe_engine.EngineSettings,
        missing: Collection[str],
        responses: Sink,
        votes: Sink,
    ) -> None:
        self._missing = missing
        self._responses, self._votes = responses, votes
        self._members: Mapping[str, ModelRef] = references(run, t - 1)
        self._engine = engine_for(run, settings, self._members.values())
        self._response_requests = ResponseRequests(run, t, self._engine, self._members)
        self._vote_requests: VoteRequests = vote_requests(run, t, self._engine)
        self._combats: dict[str, Combat] = {combat.combat_id: combat for combat in run.plan(t)}
        # Earlier tasks may have made responses of unfinished combats.
        self._judging = run.recipe.judging
        self._answers = {row.key: answer_of(row) for row in iter_shards(run.iteration(t).responses, Response)}

    def run(self) -> None:
        inbox = Inbox(self._requests())
        for done in self._engine.run(inbox):
            if self._response_requests.is_pending(done.key):
                response = self._response_requests.response(done)
                self._responses.write(response)
                self._answers[response.key] = answer_of(response)
                votes = list(self._votes_on(self._combats[response.combat_id]))
                if votes:
                    # If this node dies, no vote may survive without its response.
                    self._responses.flush()
                for request in votes:
                    inbox.put(request)
            else:
                reply = self._vote_requests.on_reply(done)
                if isinstance(reply, Request):
                    inbox.put(reply)
                else:
                    self._votes.write(reply)

    def _requests(self) -> Iterator[Request]:
        """Combat by combat, so that judging starts early: requests for missing responses or, if both exist, for the votes."""
        for combat in self._combats.values():
            absent = [
                model for model in combat.models if response_key(combat.combat_id, model) in self._missing
            ]
            if absent:
                yield from (self._response_requests.request(combat, model) for model in absent)
            else:
                yield from self._votes_on(combat)

    def _votes_on(self, combat: Combat) -> Iterator[Request]:
        """Requests for the votes on `combat`; none before both responses exist, or if the combat is undecidable."""
        keys = [response_key(combat.combat_id, model) for model in combat.models]
        if not all(key in self._answers for key in keys):
            return
        if why_undecidable([self._answers[key] for key in keys], self._judging):
            self._votes.skip(
                sum(
                    vote_key(combat.combat_id, model, judge) in self._missing
                    for model in combat.models
                    for judge in self._members
                )
            )
            return
        for judge in self._members.values():
            ballots = ballots_on(combat, judge, self._answers, self._missing)
            yield from self._vote_requests.requests(ballots, self._votes.write)


def _is_response(item: WorkItem) -> bool:
    return item.key.count("/") == 1


def _by_combat(run: Run, t: int, items: Sequence[WorkItem]) -> list[WorkItem]:
    """`items` in plan order, one bundle per combat, without groups, because every combat needs the whole pool."""
    place = {combat.combat_id: number for number, combat in enumerate(run.plan(t))}
    bundled = [replace(item, group="", bundle=item.key.partition("/")[0]) for item in items]
    return sorted(bundled, key=lambda item: place[item.bundle])
