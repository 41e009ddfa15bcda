"""Oppose: pairs of the gold answer to each prompt and the model's own answer (SPIN). The pairs of the previous iteration are added."""

from collections.abc import Sequence

from sparta.arena.preferences import unusable
from sparta.phases.base import Step
from sparta.phases.merge import read_pairs
from sparta.phases.single.gold import gold_text, read_gold
from sparta.phases.single.rank import complete_candidates, write_outcome
from sparta.phases.single.rows import Candidate, Draw, Ranking, read_draws
from sparta.phases.single.sample import Sample
from sparta.store.disk import present
from sparta.store.records import Pair, Trained
from sparta.store.run import Run
from sparta.store.shards import iter_shards

GOLD = ""
"""The `models` entry of a gold answer in a pair: it has no model."""


class Oppose(Step):
    """sample: the phase that makes one candidate per prompt."""

    name = "oppose"

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).standing)

    def execute(self, run: Run, t: int) -> None:
        candidates, gold = complete_candidates(run, t, self._sample), read_gold(run)
        rankings, pairs = [], []
        for draw in read_draws(run, t):
            [own] = candidates[draw.draw_id]
            right = gold_text(gold[draw.prompt_id])
            reason = unusable(right, own.answer)
            rankings.append(
                Ranking(draw.draw_id, (None,), (0,), None, None if reason else 0, reason or "pair")
            )
            if reason is None:
                pairs.append(against_gold(draw, right, own))
        write_outcome(run, t, candidates, rankings, [*pairs, *_previous(run, t)])


def against_gold(draw: Draw, right: str, own: Candidate) -> Pair:
    """The gold answer (chosen, complete) and the model's own (rejected). Training tokenizes the gold answer, with the learner's tokenizer."""
    return Pair(
        combat_id=draw.draw_id,
        messages=draw.messages,
        chosen=right,
        rejected=own.text,
        chosen_token_ids=(),
        rejected_token_ids=own.token_ids,
        tokenizers=("", own.tokenizer),
        finished=(True, own.finish_reason == "stop"),
        models=(GOLD, own.model),
        scores=(1.0, 0.0),
        thinking=("", own.thinking),
    )


def kept_tokens(run: Run, t: int, made_in: int) -> int:
    """The tokens that iteration t trained on in pairs made in iteration `made_in`, if all pairs have the same length."""
    pairs = read_pairs(run, t) if t > 0 else []
    tokens = sum(row.tokens for row in iter_shards(run.iteration(t).training, Trained))
    return tokens * sum(pair.iteration == made_in for pair in pairs) // max(1, len(pairs))


def _previous(run: Run, t: int) -> Sequence[Pair]:
    """The pairs that the previous iteration made itself, without those that it added from its predecessor."""
    if t == 1:
        return ()
    return [pair for pair in read_pairs(run, t - 1) if pair.iteration == t - 1]
