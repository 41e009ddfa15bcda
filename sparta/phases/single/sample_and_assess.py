"""Sampling and judging in one phase: a task's prompts are answered and the answers judged on one engine, as soon as all candidates of a prompt exist.

The rows are those of `sample` and `assess`, in the same folders; a run may change between the two ways at any time (`cluster.fused`).
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
    """Off by default (`cluster.fused`)."""

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
        # Judgements are priced by their candidate, which their keys name.
        judgements = [
            replace(item, bundle=item.key.rpartition("/")[0]) for item in items if not _is_candidate(item)
        ]
        return _by_draw([*self._sample.priced(run, t, candidates), *self._assess.priced(run, t, judgements)])

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        candidates, judgements = sinks
        engine, model = engine_of_learner(run, t, self)
        asking = CandidateRequests(run, t, engine, model)
        judge = judgement_requests(run, t, engine, self._assess.kept)
        wanted = {item.key for item in items}
        _Play(run, t, self._sample.count(run.recipe), wanted, asking, judge, candidates, judgements).play(
            engine, model
        )


class _Play:
    """One task's prompts. count: candidates of a prompt. wanted: keys of candidates and judgements that are to be made."""

    def __init__(
        self,
        run: Run,
        t: int,
        count: int,
        wanted: Collection[str],
        asking: CandidateRequests,
        judge: JudgementRequests,
        candidates: Sink,
        judgements: Sink,
    ) -> None:
        self._count, self._rounds, self._judging = count, rounds_of(run.recipe), run.recipe.judging
        self._wanted = wanted
        self._asking, self._judge = asking, judge
        self._candidates, self._judgements = candidates, judgements
        self._draws = {draw.draw_id: draw for draw in read_draws(run, t)}
        # What earlier tasks have made, of prompts that are not through.
        self._there = {
            draw_id: {row.number: row for row in rows} for draw_id, rows in read_candidates(run, t).items()
        }

    def play(self, engine: Engine, model: ModelRef) -> None:
        inbox = Inbox(self._requests(model))
        for done in engine.run(inbox):
            if self._asking.is_asked(done.key):
                row = self._asking.candidate(done)
                self._candidates.write(row)
                self._there.setdefault(row.draw_id, {})[row.number] = row
                votes = list(self._votes_on(self._draws[row.draw_id], model))
                if votes:
                    # No vote may outlast the candidate that it is on, whatever becomes of this node.
                    self._candidates.flush()
                for request in votes:
                    inbox.put(request)
            else:
                heard = self._judge.hear(done)
                if isinstance(heard, Request):
                    inbox.put(heard)
                else:
                    self._judgements.write(heard)

    def _requests(self, model: ModelRef) -> Iterator[Request]:
        """Prompt by prompt, so that judging begins early: the candidates that are missing, or, where all exist, the votes."""
        for draw in self._draws.values():
            keys = ((number, candidate_key(draw.draw_id, number)) for number in range(self._count))
            absent = [number for number, key in keys if key in self._wanted]
            if absent:
                yield from (self._asking.request(draw, number) for number in absent)
            else:
                yield from self._votes_on(draw, model)

    def _votes_on(self, draw: Draw, model: ModelRef) -> Iterator[Request]:
        """What is asked about the candidates of `draw`; nothing before all of them exist."""
        known = self._there.get(draw.draw_id, {})
        if len(known) < self._count:
            return
        judged = to_judge([known[number] for number in range(self._count)], self._judging)
        ballots = list(ballots_on(draw, judged, model, self._rounds, self._wanted))
        asked = sum(
            judgement_key(draw.draw_id, number, round) in self._wanted
            for number in range(self._count)
            for round in range(self._rounds)
        )
        self._judgements.skip(asked - len(ballots))
        yield from self._judge.requests(ballots, self._judgements.write)


def _is_candidate(item: WorkItem) -> bool:
    return item.key.count("/") == 1


def _by_draw(items: Sequence[WorkItem]) -> list[WorkItem]:
    """`items` with those of one prompt in one bundle, in the order of the plan."""
    bundled = [replace(item, bundle=item.key.partition("/")[0]) for item in items]
    return sorted(bundled, key=lambda item: item.bundle)
