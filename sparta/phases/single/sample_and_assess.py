"""Sampling and judging in one phase: one engine does both, and votes on a prompt's candidates start as soon as all of them exist.

Rows and folders are those of `sample` and `assess`, so a run may switch between the two variants at any time.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from sparta.engines.base import Engine, Inbox, ModelRef, Request
from sparta.phases.base import ArrayPhase, Expected, RowPhase, Sink, WorkItem
from sparta.phases.single.assess import (
    Assess,
    JudgementRequests,
    ballots_on,
    judgement_requests,
    rounds_of,
    to_judge,
)
from sparta.phases.single.learner import engine_of_learner
from sparta.phases.single.rows import (
    Draw,
    candidate_key,
    judgement_key,
    read_candidates,
    read_draws,
)
from sparta.phases.single.sample import CandidateRequests, Sample
from sparta.store.run import Run


class SampleAndAssess(ArrayPhase):
    """Used if `Recipe.fused` is true."""

    name = "sample_assess"
    alternatives = (Sample.name, Assess.name)

    def __init__(self, sample: Sample, assess: Assess) -> None:
        self._sample, self._assess = sample, assess

    @property
    def title(self) -> str:
        return "sample+assess"

    @property
    def parts(self) -> Sequence[RowPhase]:
        return [self._sample, self._assess]

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return _by_draw([*self._sample.work(run, t), *self._assess.work(run, t)])

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return _by_draw([*self._sample.missing(run, t), *self._assess.missing(run, t)])

    def final(self, run: Run, t: int) -> bool:
        return self._assess.final(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        sampling, judging = self._sample.expected(run, t), self._assess.expected(run, t)
        return Expected(
            f"{sampling.what}, {judging.what}",
            bundles=run.recipe.combats,
            cost=sampling.cost + judging.cost,
            tokens=sampling.tokens + judging.tokens,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        candidates = [item for item in items if _is_candidate(item)]
        # `Assess.priced` takes the candidate of a judgement from its bundle.
        judgements = [
            replace(item, bundle=item.key.rpartition("/")[0]) for item in items if not _is_candidate(item)
        ]
        return _by_draw([*self._sample.priced(run, t, candidates), *self._assess.priced(run, t, judgements)])

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        candidates, judgements = sinks
        engine, model = engine_of_learner(run, t, self)
        sampling = CandidateRequests(run, t, engine, model)
        judging = judgement_requests(run, t, engine, self._assess.keep_ids)
        missing = {item.key for item in items}
        count = self._sample.count(run.recipe)
        _Prompts(run, t, count, missing, sampling, judging, candidates, judgements).run(engine, model)


class _Prompts:
    """One task's prompts. count: candidates per prompt. missing: keys of the candidates and judgements to make."""

    def __init__(
        self,
        run: Run,
        t: int,
        count: int,
        missing: Collection[str],
        sampling: CandidateRequests,
        judging: JudgementRequests,
        candidates: Sink,
        judgements: Sink,
    ) -> None:
        self._count, self._rounds, self._judging = count, rounds_of(run.recipe), run.recipe.judging
        self._missing = missing
        self._candidate_requests, self._judgement_requests = sampling, judging
        self._candidates, self._judgements = candidates, judgements
        self._draws = {draw.draw_id: draw for draw in read_draws(run, t)}
        # Earlier tasks may have made candidates of unfinished prompts.
        self._existing = {
            draw_id: {row.number: row for row in rows} for draw_id, rows in read_candidates(run, t).items()
        }

    def run(self, engine: Engine, model: ModelRef) -> None:
        inbox = Inbox(self._requests(model))
        for done in engine.run(inbox):
            if self._candidate_requests.is_pending(done.key):
                row = self._candidate_requests.candidate(done)
                self._candidates.write(row)
                self._existing.setdefault(row.draw_id, {})[row.number] = row
                votes = list(self._votes_on(self._draws[row.draw_id], model))
                if votes:
                    # If this node dies, no vote may survive without its candidate.
                    self._candidates.flush()
                for request in votes:
                    inbox.put(request)
            else:
                reply = self._judgement_requests.on_reply(done)
                if isinstance(reply, Request):
                    inbox.put(reply)
                else:
                    self._judgements.write(reply)

    def _requests(self, model: ModelRef) -> Iterator[Request]:
        """Prompt by prompt, so that judging starts early: requests for missing candidates or, if all exist, for the votes."""
        for draw in self._draws.values():
            keys = ((number, candidate_key(draw.draw_id, number)) for number in range(self._count))
            absent = [number for number, key in keys if key in self._missing]
            if absent:
                yield from (self._candidate_requests.request(draw, number) for number in absent)
            else:
                yield from self._votes_on(draw, model)

    def _votes_on(self, draw: Draw, model: ModelRef) -> Iterator[Request]:
        """Requests for the votes on the candidates of `draw`; none before all of them exist."""
        known = self._existing.get(draw.draw_id, {})
        if len(known) < self._count:
            return
        judged = to_judge([known[number] for number in range(self._count)], self._judging)
        ballots = list(ballots_on(draw, judged, model, self._rounds, self._missing))
        requested = sum(
            judgement_key(draw.draw_id, number, round) in self._missing
            for number in range(self._count)
            for round in range(self._rounds)
        )
        self._judgements.skip(requested - len(ballots))
        yield from self._judgement_requests.requests(ballots, self._judgements.write)


def _is_candidate(item: WorkItem) -> bool:
    return item.key.count("/") == 1


def _by_draw(items: Sequence[WorkItem]) -> list[WorkItem]:
    """`items` in plan order, one bundle per prompt."""
    bundled = [replace(item, bundle=item.key.partition("/")[0]) for item in items]
    return sorted(bundled, key=lambda item: item.bundle)
