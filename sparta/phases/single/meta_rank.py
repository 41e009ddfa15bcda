"""Meta-rank: pairs of candidates by the model's votes, with length control, and pairs of judgements by Elo (Meta-Rewarding). Needs no model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.phases.base import Step
from sparta.phases.single.best_and_worst import with_length_control
from sparta.phases.single.compare import compared
from sparta.phases.single.elo import Win, position_weights, ratings
from sparta.phases.single.learner import learner_of
from sparta.phases.single.rank import (
    Counts,
    checked_stats,
    complete_candidates,
    ranked,
    votes_by_candidate,
    write_outcome,
)
from sparta.phases.single.rows import COMPARISONS, Comparison, Judgement, Ranking, comparison_key, read_draws
from sparta.phases.single.sample import Sample
from sparta.phases.unreadable import excerpt, refuse_unreadable
from sparta.store.disk import present
from sparta.store.records import Pair
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import JudgeStats

TIE = 1e-6
"""Elo ratings that differ by at most this count as equal: rounding errors are of this size."""


class MetaRank(Step):
    """Writes the files of `rank`. In preferences.jsonl, pairs of judgements follow pairs of candidates."""

    name = "meta_rank"

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).standing)

    def execute(self, run: Run, t: int) -> None:
        rules, rho = run.recipe.preferences, run.recipe.baseline.length_control
        candidates = complete_candidates(run, t, self._sample)
        votes = votes_by_candidate(run, t, candidates)
        stats = checked_stats(run, t, votes.values())
        rankings: list[Ranking] = []
        pairs: list[Pair] = []
        prompts: dict[tuple[str, int], str] = {}
        for draw in read_draws(run, t):
            rows, cast = candidates[draw.draw_id], votes[draw.draw_id]
            scores = [found.mean for found in cast]
            choice = with_length_control(
                [row.answer for row in rows], scores, [row.new_tokens for row in rows], rho, rules
            )
            ranking, pair = ranked(draw, rows, scores, [len(found.scores) for found in cast], choice)
            rankings.append(ranking)
            pairs += pair
            prompts |= {
                (draw.draw_id, found.all[0].number): found.all[0].prompt for found in cast if found.all
            }
        doubtful = compared(run, t)
        known = {draw.draw_id: doubtful.get(draw.draw_id, ()) for draw in read_draws(run, t)}
        comparisons = _comparisons(run, t, known)
        judged, reasons = _judge_pairs(known, comparisons, prompts)
        counts = Counts(stats, _stats_of(comparisons), reasons)
        write_outcome(run, t, candidates, rankings, [*pairs, *judged], counts)


Known = Mapping[str, Sequence[Judgement]]
"""By draw, the judgements that are compared, in the order of the plan."""


def _comparisons(run: Run, t: int, known: Known) -> list[Comparison]:
    """All comparisons. Raises SpartaError if one is missing, or if too many could not be read."""
    found = {row.key: row for row in iter_shards(run.iteration(t).root / COMPARISONS, Comparison)}
    rows_compared = []
    for draw_id, rows in known.items():
        for first, second in permutations(rows, 2):
            key = comparison_key(draw_id, first.round, second.round)
            if key not in found:
                raise SpartaError(
                    f"{run.iteration(t).root / COMPARISONS} lacks {key}: the comparison is not complete, launch the run again to continue it"
                )
            rows_compared.append(found[key])
    missing = [row for row in rows_compared if row.better is None]
    texts = (excerpt(row.raw, row.thinking) for row in missing)
    no_room = sum(not row.prompt_tokens for row in missing)
    what = f"comparisons of judgements of {learner_of(run.recipe)} could not be read"
    refuse_unreadable(run, t, what, _stats_of(rows_compared), texts, no_room)
    return rows_compared


def _judge_pairs(
    known: Known, comparisons: Sequence[Comparison], prompts: Mapping[tuple[str, int], str]
) -> tuple[list[Pair], Mapping[str, int]]:
    """Pairs that train the model to judge: of each prompt with compared judgements, the best judgement against the worst.

    Also the number of such prompts by result: "pair", "void" (no comparison could be read) or "tie" (equal ratings).
    """
    wins = _wins(comparisons)
    weights = position_weights([win for each in wins.values() for win in each])
    pairs, reasons = [], Counter[str]()
    for draw_id, rows in known.items():
        if len(rows) < 2:
            continue
        pair = judge_pair(draw_id, rows, wins.get(draw_id, ()), weights, prompts)
        if pair is not None:
            pairs.append(pair)
        reasons["void" if draw_id not in wins else "tie" if pair is None else "pair"] += 1
    return pairs, reasons


def _stats_of(comparisons: Sequence[Comparison]) -> JudgeStats:
    return JudgeStats(
        votes=len(comparisons),
        missing=sum(row.better is None for row in comparisons),
        retried=sum(row.tries > 1 for row in comparisons),
        prompt_tokens=sum(row.prompt_tokens for row in comparisons),
        new_tokens=sum(row.new_tokens for row in comparisons),
        unanswered=sum(not row.answered for row in comparisons),
    )


def _wins(comparisons: Sequence[Comparison]) -> dict[str, list[Win]]:
    """By draw, the readable comparisons; judgements are identified by their rounds."""
    wins: dict[str, list[Win]] = {}
    for row in comparisons:
        if row.better is not None:
            pair = (row.first, row.second) if row.better == "first" else (row.second, row.first)
            wins.setdefault(row.draw_id, []).append(Win(*pair, shown_first=row.better == "first"))
    return wins


def judge_pair(
    draw_id: str,
    rows: Sequence[Judgement],
    wins: Sequence[Win],
    weights: tuple[float, float],
    prompts: Mapping[tuple[str, int], str],
) -> Pair | None:
    """The judgement with the highest rating against the one with the lowest, with their judge prompt; None if the ratings are equal."""
    place = {row.round: index for index, row in enumerate(rows)}
    known = ratings(
        len(rows), [Win(place[win.winner], place[win.loser], win.shown_first) for win in wins], weights
    )
    best = max(range(len(rows)), key=lambda index: (known[index], -index))
    worst = min(range(len(rows)), key=lambda index: (known[index], index))
    if known[best] - known[worst] <= TIE:
        return None
    chosen, rejected = rows[best], rows[worst]
    return Pair(
        combat_id=f"{draw_id}/{chosen.number}",
        messages=(Message("user", prompts[draw_id, chosen.number]),),
        chosen=chosen.raw,
        rejected=rejected.raw,
        chosen_token_ids=chosen.token_ids,
        rejected_token_ids=rejected.token_ids,
        tokenizers=(chosen.tokenizer, rejected.tokenizer),
        # Only judgements with a score are paired, and a judgement that was cut has none.
        finished=(True, True),
        models=(chosen.judge, rejected.judge),
        scores=(known[best], known[worst]),
        thinking=(chosen.thinking, rejected.thinking),
    )
