"""Judge: every model that does not duel scores each of the two responses alone, on 1..10 (Algorithm 1, lines 7 to 9)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparta import rng
from sparta.arena.votes import expected_score, parse_score
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.engines.factory import open_engine
from sparta.errors import SpartaError
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.generate import estimated_tokens
from sparta.phases.pool import references
from sparta.prompts import Message, Prompt, PromptTooLong, Renderer, judging_instruction
from sparta.recipe import Judging
from sparta.store.records import Response, Vote, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import read_shards


@dataclass(frozen=True)
class Ballot:
    """One vote to be cast, and what the judge needs for it."""

    combat_id: str
    contestant: str
    judge: ModelRef
    messages: tuple[Message, ...]
    response: str
    prompt: Prompt | None = None
    tries: int = 0

    @property
    def key(self) -> str:
        return vote_key(self.combat_id, self.contestant, self.judge.name)


@dataclass(frozen=True)
class Reading:
    """What one try came to: a score or None, what the judge wrote, and tokens spent."""

    score: float | None
    raw: str
    prompt_tokens: int
    new_tokens: int
    seconds: float


class Judge(RowPhase):
    name = "judge"
    rows = Vote

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).votes

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        recipe = run.recipe
        tail = recipe.judging.max_new_tokens + recipe.generation.max_new_tokens / 2
        items = []
        for combat in run.plan(t):
            cost = estimated_tokens(combat.messages) + tail
            for judge in run.models:
                if judge not in combat.models:
                    items += [
                        WorkItem(vote_key(combat.combat_id, model, judge), cost, judge)
                        for model in combat.models
                    ]
        return items

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        recipe = run.recipe
        engine = open_engine(recipe.engine, recipe.pool.trust_remote_code)
        ballots = list(_ballots(run, t, items))
        rendered = []
        for ballot in ballots:
            try:
                rendered.append(
                    replace(ballot, prompt=_render(engine.renderer(ballot.judge), ballot, recipe.judging))
                )
            except PromptTooLong as error:
                sink.write(
                    Vote(
                        ballot.combat_id,
                        ballot.contestant,
                        ballot.judge.name,
                        score=None,
                        raw=str(error),
                        tries=1,
                    )
                )
        pending = rendered
        for attempt in range(recipe.judging.retries + 1):
            again = []
            for ballot, reading in _cast(engine, pending, recipe.judging, (recipe.seed, t, "judge", attempt)):
                ballot = replace(ballot, tries=attempt + 1)
                if reading.score is None and attempt < recipe.judging.retries:
                    again.append(ballot)
                else:
                    sink.write(_vote(ballot, reading))
            pending = sorted(again, key=lambda ballot: ballot.key)


def label_ids(renderer: Renderer, labels: Sequence[str]) -> tuple[int, ...]:
    """The token id of each label. Raises SpartaError for a label that is not exactly one token, or not its own."""
    ids = [renderer.encode(label) for label in labels]
    for label, pieces in zip(labels, ids, strict=True):
        if len(pieces) != 1:
            raise SpartaError(
                f"judging label {label!r} is {len(pieces)} tokens for the judges' tokenizer: set judging.labels to labels of one token each"
            )
    if len({pieces[0] for pieces in ids}) != len(labels):
        raise SpartaError(
            f"two of the judging labels {', '.join(labels)} are the same token: set judging.labels to distinct ones"
        )
    return tuple(pieces[0] for pieces in ids)


def _ballots(run: Run, t: int, items: Sequence[WorkItem]) -> Iterator[Ballot]:
    """The ballots of `items`, those of one judge together and its two votes on a combat next to each other."""
    responses: Mapping[str, Response] = read_shards(run.iteration(t).responses, Response)
    members = references(run, t - 1)
    wanted = {item.key for item in items}
    for judge in run.models:
        for combat in run.plan(t):
            for model in combat.models:
                if vote_key(combat.combat_id, model, judge) not in wanted:
                    continue
                response = responses.get(response_key(combat.combat_id, model))
                if response is None:
                    raise SpartaError(
                        f"{run.iteration(t).responses} has no response of {model} in combat {combat.combat_id}: "
                        "generation is not complete, launch the run again to continue it"
                    )
                yield Ballot(combat.combat_id, model, members[judge], combat.messages, response.text)


def _render(renderer: Renderer, ballot: Ballot, judging: Judging) -> Prompt:
    return renderer.judging(
        ballot.messages,
        ballot.response,
        instruction=judging_instruction(judging.mode, judging.working, judging.labels),
        max_new_tokens=judging.max_new_tokens,
    )


def _cast(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    """One try for each ballot."""
    if judging.mode == "text":
        yield from _cast_text(engine, ballots, judging, stream)
    else:
        yield from _cast_expected(engine, ballots, judging, stream)


def _cast_text(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    by_key = {ballot.key: ballot for ballot in ballots}
    for done in engine.run(_requests(ballots, judging, stream, stop=())):
        score = parse_score(done.text, bare=not judging.working)
        yield (
            by_key[done.key],
            Reading(score, done.text, done.prompt_tokens, len(done.token_ids), done.seconds),
        )


def _cast_expected(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    """The mean of the next-token distribution over the labels; after one line of working where the recipe asks for it."""
    by_key = {ballot.key: ballot for ballot in ballots}
    workings: dict[str, Completion] = {}
    if judging.working:
        workings = {done.key: done for done in engine.run(_requests(ballots, judging, stream, stop=("\n",)))}
    requests = []
    labels: dict[str, tuple[int, ...]] = {}
    for ballot in ballots:
        working = workings.get(ballot.key)
        if working is not None and not working.text.endswith("\n"):
            yield (
                ballot,
                Reading(None, working.text, working.prompt_tokens, len(working.token_ids), working.seconds),
            )
            continue
        [request] = _requests([ballot], judging, stream, stop=())
        base = ballot.judge.base
        if base not in labels:
            labels[base] = label_ids(engine.renderer(ballot.judge), judging.labels)
        requests.append(replace(request, labels=labels[base], prefix=working.token_ids if working else ()))
    for done in engine.run(requests):
        working = workings.get(done.key)
        yield (
            by_key[done.key],
            Reading(
                score=expected_score(done.label_probs),
                raw=working.text if working else "",
                prompt_tokens=done.prompt_tokens,
                new_tokens=len(working.token_ids) if working else 0,
                seconds=done.seconds + (working.seconds if working else 0.0),
            ),
        )


def _requests(
    ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...], stop: tuple[str, ...]
) -> Iterator[Request]:
    sampling = Sampling(judging.temperature, judging.top_p, judging.top_k, judging.max_new_tokens, stop)
    for ballot in ballots:
        assert ballot.prompt is not None
        yield Request(ballot.key, ballot.judge, ballot.prompt, sampling, rng.seed_of(*stream, ballot.key))


def _vote(ballot: Ballot, reading: Reading) -> Vote:
    return Vote(
        combat_id=ballot.combat_id,
        contestant=ballot.contestant,
        judge=ballot.judge.name,
        score=reading.score,
        raw=reading.raw,
        tries=ballot.tries,
        prompt_tokens=reading.prompt_tokens,
        new_tokens=reading.new_tokens,
        cut=ballot.prompt.cut if ballot.prompt else 0,
        seconds=reading.seconds,
    )
