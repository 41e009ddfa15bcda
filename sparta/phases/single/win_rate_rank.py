"""Rank by win rates: each prompt's candidate with the highest win rate against the one with the lowest (SPPO). Needs no model."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from sparta.errors import SpartaError
from sparta.phases.base import Step
from sparta.phases.single.best_and_worst import best_and_worst, undecided
from sparta.phases.single.rank import Counts, complete_candidates, ranked, write_outcome
from sparta.phases.single.rows import WIN_RATES, Candidate, Ranking, WinRates, read_draws
from sparta.phases.single.sample import Sample
from sparta.phases.unreadable import fork, too_many_missing
from sparta.store.disk import present
from sparta.store.records import Pair
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.store.stats import JudgeStats


def win_rates(probabilities: Sequence[Sequence[float | None]]) -> tuple[list[float | None], list[int]]:
    """Of each candidate the mean probability of beating a candidate, itself included (1/2), and with how many others it was compared.

    A candidate that was compared with no other has no win rate.
    """
    rates, counted = [], []
    for i, row in enumerate(probabilities):
        others = [value for j, value in enumerate(row) if j != i and value is not None]
        rates.append((0.5 + sum(others)) / (1 + len(others)) if others else None)
        counted.append(len(others))
    return rates, counted


def comparisons_of(
    candidates: Mapping[str, Sequence[Candidate]], known: Mapping[str, WinRates]
) -> JudgeStats:
    """Pairs of different answers that were compared, and how many of them have no probability."""
    found = [
        row.probabilities[i][j]
        for draw_id, row in known.items()
        for i, j in combinations(range(len(row.probabilities)), 2)
        if len({answer for k in (i, j) if (answer := candidates[draw_id][k].answer.strip())}) == 2
    ]
    return JudgeStats(
        votes=len(found),
        missing=sum(probability is None for probability in found),
        prompt_tokens=sum(row.read_tokens for row in known.values()),
    )


def _refuse_unreadable(run: Run, t: int, compared: JudgeStats) -> None:
    """Raises SpartaError if more than the share judging.max_missing of the comparisons is missing: the few others would decide what is learned."""
    preference = run.recipe.baseline.preference
    if preference is not None and compared.share_missing > run.recipe.judging.max_missing:
        what, why = (
            "pairs of candidates could not be compared",
            f"{preference.model or 'the task'} could not read them",
        )
        remedy = f"the preference model: {fork(run, t)} --set baseline.preference.model=MODEL"
        raise too_many_missing(run, t, what, compared, why, remedy)


class WinRateRank(Step):
    """The scores of a pair are the win rates that the square loss needs."""

    name = "win_rate_rank"

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).standing)

    def execute(self, run: Run, t: int) -> None:
        candidates = complete_candidates(run, t, self._sample)
        folder: Path = run.iteration(t).root / WIN_RATES
        known = read_shards(folder, WinRates)
        compared = comparisons_of(candidates, known)
        _refuse_unreadable(run, t, compared)
        rankings: list[Ranking] = []
        pairs: list[Pair] = []
        for draw in read_draws(run, t):
            rows = candidates[draw.draw_id]
            rates: list[float | None]
            if undecided([row.answer for row in rows]):
                rates, counted = [None for _ in rows], [0 for _ in rows]
            elif draw.draw_id in known:
                rates, counted = win_rates(known[draw.draw_id].probabilities)
            else:
                raise SpartaError(
                    f"{folder} lacks {draw.draw_id}: the comparison is not complete, launch the run again to continue it"
                )
            choice = best_and_worst([row.answer for row in rows], rates, run.recipe.preferences)
            ranking, pair = ranked(draw, rows, rates, counted, choice)
            rankings.append(ranking)
            pairs += pair
        write_outcome(run, t, candidates, rankings, pairs, Counts(comparisons=compared))
