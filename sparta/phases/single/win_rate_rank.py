"""Rank by win rates: each prompt's candidate with the highest win rate against the one with the lowest (SPPO). Needs no model."""

from collections.abc import Sequence
from pathlib import Path

from sparta.errors import SpartaError
from sparta.phases.base import Step
from sparta.phases.single.best_and_worst import best_and_worst, undecided
from sparta.phases.single.rank import complete_candidates, ranked, write_outcome
from sparta.phases.single.rows import WIN_RATES, Ranking, WinRates, read_draws
from sparta.phases.single.sample import Sample
from sparta.store.disk import present
from sparta.store.records import Pair
from sparta.store.run import Run
from sparta.store.shards import read_shards


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
        write_outcome(run, t, candidates, rankings, pairs)
