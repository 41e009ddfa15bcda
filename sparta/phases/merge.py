"""Merge: replays the iteration's combats, labels them, updates reputations and writes preference pairs (Algorithm 1, lines 10 to 14).

It needs no model: the votes are on disk, and the replay gives the same labels and reputations as judging the combats one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from sparta.arena.replay import Replay
from sparta.chat.template import Message
from sparta.phases.base import Step
from sparta.phases.judged import JudgedIteration, JudgedResponse, judged_iteration
from sparta.phases.unreadable import excerpt, refuse_unreadable
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.records import Combat, FinishReason, Pair, Result, Vote
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats, JudgeStats


class PairSide(Protocol):
    """An answer that becomes one side of a preference pair."""

    @property
    def text(self) -> str: ...

    @property
    def thinking(self) -> str: ...

    @property
    def token_ids(self) -> Sequence[int]: ...

    @property
    def tokenizer(self) -> str: ...

    @property
    def finish_reason(self) -> FinishReason: ...


class Merge(Step):
    name = "merge"

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).standing)

    def execute(self, run: Run, t: int) -> None:
        recipe, iteration = run.recipe, run.iteration(t)
        judged = judged_iteration(run, t)
        _check_jury(run, t, judged.jury)
        outcome = judged.replayed(standings.at_start(run, t), recipe.reputation, recipe.preferences)
        files.write_rows(iteration.combats, _results(judged.plan, outcome))
        files.write_rows(iteration.preferences, _pairs(judged, outcome))
        counted = merge_stats(
            judged.plan, outcome, judged.jury, *_counted(judged.responses), judged.votes_saved
        )
        files.write_json(iteration.stats, counted)
        files.write_json(iteration.standing, outcome.standings)


def _counted(responses: Sequence[Sequence[JudgedResponse]]) -> tuple[int, int, int, int]:
    """Tokens of all responses, and how many responses were cut off at the token limit, have a prompt that fills the context, or have thinking
    that never ended.
    """
    flat = [side for sides in responses for side in sides]
    too_long = sum(response.finish_reason == "prompt_too_long" for response in flat)
    unanswered = sum(not response.answered for response in flat)
    cut = sum(response.finish_reason == "length" for response in flat)
    return sum(response.new_tokens for response in flat), cut, too_long, unanswered


def _check_jury(run: Run, t: int, jury: Mapping[str, JudgeStats]) -> None:
    """Raises SpartaError if too many votes of a judge are missing, since the labels would depend on the other judges only."""
    for judge, counts in jury.items():
        what = f"votes of judge {judge} could not be read"
        refuse_unreadable(
            run, t, what, counts, _missing_votes(run, t, judge), more="; without the judge: a new run"
        )


def _missing_votes(run: Run, t: int, judge: str) -> Iterator[str]:
    for vote in iter_shards(run.iteration(t).votes, Vote):
        if vote.judge == judge and vote.score is None:
            yield excerpt(vote.raw, vote.thinking)


def _results(plan: Sequence[Combat], outcome: Replay) -> Iterator[Result]:
    for combat, result in zip(plan, outcome.outcomes, strict=True):
        yield Result(
            combat_id=combat.combat_id,
            models=combat.models,
            scores=result.scores,
            winner=None if result.winner is None else combat.models[result.winner],
            reason=result.reason,
            jury=result.jury,
            reputations_before=result.before,
            reputations_after=result.after,
        )


def _pairs(judged: JudgedIteration, outcome: Replay) -> Iterator[Pair]:
    for combat, sides, result in zip(judged.plan, judged.responses, outcome.outcomes, strict=True):
        if result.winner is None or result.scores is None:
            continue
        won, lost = result.winner, 1 - result.winner
        yield pair_of(
            combat.combat_id,
            combat.messages,
            (sides[won], sides[lost]),
            (combat.models[won], combat.models[lost]),
            (result.scores[won], result.scores[lost]),
        )


def pair_of(
    pair_id: str,
    messages: tuple[Message, ...],
    sides: tuple[PairSide, PairSide],
    models: tuple[str, str],
    scores: tuple[float, float],
) -> Pair:
    """A preference pair of two answers to one prompt; all in the order chosen, rejected."""
    chosen, rejected = sides
    return Pair(
        combat_id=pair_id,
        messages=messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_token_ids=tuple(chosen.token_ids),
        rejected_token_ids=tuple(rejected.token_ids),
        tokenizers=(chosen.tokenizer, rejected.tokenizer),
        finished=(chosen.finish_reason == "stop", rejected.finish_reason == "stop"),
        models=models,
        scores=scores,
        thinking=(chosen.thinking, rejected.thinking),
    )


def read_pairs(run: Run, t: int) -> list[Pair]:
    """P of iteration t."""
    return list(files.read_rows(run.iteration(t).preferences, Pair))


def merge_stats(
    plan: Sequence[Combat],
    outcome: Replay,
    jury: Mapping[str, JudgeStats],
    response_tokens: int,
    cut_responses: int,
    too_long: int,
    unanswered: int,
    votes_saved: int,
) -> IterationStats:
    """The iteration's stats, as far as they are known after the merge."""
    wins = dict.fromkeys(jury, 0)
    losses = dict.fromkeys(jury, 0)
    for combat, result in zip(plan, outcome.outcomes, strict=True):
        if result.winner is not None:
            wins[combat.models[result.winner]] += 1
            losses[combat.models[1 - result.winner]] += 1
    counts = dict(outcome.counts)
    return IterationStats(
        combats=len(plan),
        uniform_juries=counts.pop("uniform_jury", 0),
        reasons=counts,
        wins=wins,
        losses=losses,
        judges=dict(jury),
        response_tokens=response_tokens,
        cut_responses=cut_responses,
        too_long=too_long,
        unanswered=unanswered,
        votes_saved=votes_saved,
    )
