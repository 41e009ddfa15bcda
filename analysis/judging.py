"""How the judges judged: their weights, agreement with the label, leniency, spread, missing votes; and what a label owes to the reputations.

The weight of a judge in a combat is omega times its reputation at that moment of the replay, as in sparta/arena/replay.py: the frames hold the
reputations of the contestants before and after each combat, so those of all models follow. With `reputation.labels: final` a label has the
reputations at the end of the iteration instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from analysis.frames import Frames, Source
from analysis.pieces import Absent

if TYPE_CHECKING:
    from numpy import bool_, float64, int64
    from numpy.typing import NDArray

TIE = 1e-9
"""Unweighted means that differ by less are a tie."""


@dataclass(frozen=True)
class Bench:
    """The judged combats of one iteration: n combats, m models.

    votes: [n, 2, m], NaN where missing, or where the model is a contestant. counted: [n, m], whether the judge scored both responses. weights: [n, m], of
    the label. gap: [n], aggregated score of the first contestant minus that of the second, as on disk. winner: [n], 0, 1 or -1. ids: of the combats.
    """

    run: str
    iteration: int
    models: Sequence[str]
    ids: Sequence[str]
    votes: "NDArray[float64]"
    counted: "NDArray[bool_]"
    weights: "NDArray[float64]"
    gap: "NDArray[float64]"
    winner: "NDArray[int64]"

    def jury(self, weights: "NDArray[float64]") -> "NDArray[float64]":
        """[n, judges]: `weights` of the judges that counted, 0 of the others; where they do not sum to a positive number, all that counted weigh 1."""
        import numpy as np

        w = np.where(self.counted, weights, 0.0)
        found: NDArray[float64] = np.where((w.sum(axis=1) > 0)[:, None], w, self.counted.astype(float))
        return found

    def means(self, weights: "NDArray[float64]") -> "NDArray[float64]":
        """[n, 2]: the means of the counted votes, weighted as `jury` says; NaN without a vote."""
        import numpy as np

        w = self.jury(weights)
        total = w.sum(axis=1)[:, None]
        sums = (np.where(self.counted[:, None, :], self.votes, 0.0) * w[:, None, :]).sum(axis=2)
        means: NDArray[float64] = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
        return means


def benches(found: Frames) -> Iterator[Bench]:
    """The judged combats of each run and iteration. Raises Absent where there are none.

    An iteration that is being merged has combats and no standings yet, so its weights are not known, and it is left out.
    """
    combats, votes = found.combats, found.votes
    judged = combats[combats.score_first.notna()]
    merged = found.standings[["run", "iteration"]].astype({"run": str}).drop_duplicates()
    if judged.astype({"run": str}).merge(merged, on=["run", "iteration"]).empty:
        raise Absent("no combat was judged yet (methods that align one model have no combats)")
    for source in found.sources:
        mine, theirs = (frame[frame.run == source.label] for frame in (combats, votes))
        for t, of_iteration in mine.groupby("iteration"):
            if not has_weights(found, source, int(t)):
                continue
            bench = _bench(found, source, int(t), of_iteration, theirs[theirs.iteration == t])
            if len(bench.ids):
                yield bench


def _bench(found: Frames, source: Source, t: int, combats: pd.DataFrame, votes: pd.DataFrame) -> Bench:
    import numpy as np

    models = source.run.models
    number = {model: place for place, model in enumerate(models)}
    combats = combats.sort_values("place")
    weights = judging_weights(found, source, t, combats)
    judged = combats.score_first.notna().to_numpy()
    combats, weights = combats[judged], weights[judged]
    sides = [combats[name].astype(str).map(number).to_numpy() for name in ("first", "second")]
    place = {name: at for at, name in enumerate(combats.combat_id)}
    votes = votes[votes.combat_id.isin(place)]
    rows = votes.combat_id.map(place).to_numpy(dtype=int)
    judges = votes.judge.astype(str).map(number).to_numpy(dtype=int)
    contestants = votes.contestant.astype(str).map(number).to_numpy(dtype=int)
    table = np.full((len(combats), 2, len(models)), np.nan)
    table[rows, (contestants == sides[1][rows]).astype(int), judges] = votes.score.to_numpy()
    winner = np.where(
        combats.winner.isna(), -1, (combats.winner.astype(str) == combats["second"].astype(str)).astype(int)
    )
    return Bench(
        source.label,
        t,
        models,
        combats.combat_id.tolist(),
        table,
        np.isfinite(table).all(axis=1),
        weights,
        (combats.score_first - combats.score_second).to_numpy(),
        winner,
    )


def has_weights(found: Frames, source: Source, t: int) -> bool:
    """Whether iteration t has standings, which the weights of its judges come from."""
    standings = found.standings
    return bool(((standings.run == source.label) & (standings.iteration == t)).any())


def judging_weights(found: Frames, source: Source, t: int, combats: pd.DataFrame) -> "NDArray[float64]":
    """[n, m]: every model's weight as a judge of labels in each of `combats`, all those of iteration t in plan order."""
    import numpy as np

    rules = source.run.recipe.reputation
    standings = found.standings[found.standings.run == source.label]
    start, end = (
        standings[standings.iteration == at].set_index("model").reindex(list(source.run.models))
        for at in (t - 1, t)
    )
    omega = (
        end.weight.to_numpy() if rules.omega == "judges" and rules.labels != "final" else np.ones(len(end))
    )
    if rules.labels == "final":
        return np.tile(end.reputation.to_numpy(), (len(combats), 1))
    number = {model: place for place, model in enumerate(source.run.models)}
    live, made = start.reputation.to_numpy(dtype=float).copy(), []
    columns = ("first", "second", "after_first", "after_second")
    for first, second, after_first, after_second in zip(*(combats[name] for name in columns), strict=True):
        made.append(live.copy())
        live[number[first]], live[number[second]] = after_first, after_second
    return np.array(made).reshape(len(combats), len(number)) * omega


def judges(found: Frames) -> pd.DataFrame:
    """One row a run, iteration and judge.

    votes, missing: how many were asked for, and the share that could not be read. mean, spread: of its scores. leniency: the mean difference of its score and
    the mean of the other judges' scores of the same response. decided: combats with a pair of which it scored both responses differently; agreement: the share
    of them in which it preferred the winner; agreement_with_others: in which it preferred the one that the others prefer without it, by their weights.
    weight: the mean of its judging weight times its reputation in the label, as a share of its jury's.
    """
    import numpy as np

    asked = found.votes.groupby(["run", "iteration", "judge"], observed=True).score.agg(
        ["size", "count", "mean", "std"]
    )
    rows = []
    for bench in benches(found):
        scores, valid = bench.votes, np.isfinite(bench.votes)
        total, count = np.nansum(scores, axis=2), valid.sum(axis=2)
        shares = bench.jury(bench.weights)
        whole = shares.sum(axis=1, keepdims=True)
        shares = np.divide(shares, whole, out=np.full(shares.shape, np.nan), where=whole > 0)
        for k, judge in enumerate(bench.models):
            key = (bench.run, bench.iteration, judge)
            if key not in asked.index:
                continue
            mine, others = scores[:, :, k], count - valid[:, :, k]
            with np.errstate(invalid="ignore", divide="ignore"):
                rest = (total - np.nan_to_num(mine)) / others
            lenient = (mine - rest)[np.isfinite(mine) & (others > 0)]
            own = mine[:, 0] - mine[:, 1]
            voted = np.isfinite(own) & (np.abs(own) > TIE)
            decided = voted & (bench.winner >= 0)
            other_means = _without(bench, k).means(bench.weights)
            other_gap = other_means[:, 0] - other_means[:, 1]
            both = voted & (np.abs(np.nan_to_num(other_gap)) > TIE)
            size, given, mean, deviation = asked.loc[key]
            seats = bench.counted[:, k]
            rows.append(
                (
                    *key,
                    int(size),
                    1 - given / size,
                    mean,
                    deviation,
                    lenient.mean() if lenient.size else None,
                    int(decided.sum()),
                    ((own > 0) == (bench.winner == 0))[decided].mean() if decided.any() else None,
                    ((own > 0) == (other_gap > 0))[both].mean() if both.any() else None,
                    np.nanmean(shares[seats, k]) if np.isfinite(shares[seats, k]).any() else None,
                )
            )
    names = [
        "run",
        "iteration",
        "judge",
        "votes",
        "missing",
        "mean",
        "spread",
        "leniency",
        "decided",
        "agreement",
        "agreement_with_others",
        "weight",
    ]
    frame = pd.DataFrame(rows, columns=names)
    return frame.astype(dict.fromkeys(names[4:8] + names[9:], "float64"))


def _without(bench: Bench, judge: int) -> Bench:
    """The bench as it were if `judge` had not voted."""
    counted = bench.counted.copy()
    counted[:, judge] = False
    return replace(bench, counted=counted)


def labels(found: Frames) -> pd.DataFrame:
    """One row a run and iteration: how clear the labels were, and what they owe to the reputations.

    judged: combats with an aggregated score; pairs; margin, median_margin: of the pairs, score points. by_weights: share of the pairs whose unweighted means are a
    tie, so that the judges' weights alone decided; reversed: share of the pairs that unweighted means would decide the other way round. jury: mean number of
    judges that counted; effective_judges: the mean of (sum w)^2 / sum w^2 over combats (Kish), their number if all weighed the same. split: mean share of the
    judges with a preference that preferred the loser.
    """
    import numpy as np

    rows = []
    for bench in benches(found):
        plain = bench.means(np.ones_like(bench.weights))
        gap, pairs = plain[:, 0] - plain[:, 1], bench.winner >= 0
        tie = np.abs(gap) <= TIE
        other = ~tie & ((gap > 0) != (bench.winner == 0))
        w = bench.jury(bench.weights)
        squares = (w**2).sum(axis=1)
        effective = w.sum(axis=1)[squares > 0] ** 2 / squares[squares > 0]
        own = bench.votes[:, 0, :] - bench.votes[:, 1, :]
        prefers = bench.counted & (np.abs(np.nan_to_num(own)) > TIE)
        against = prefers & ((own > 0) != (bench.winner == 0)[:, None])
        voiced = prefers.sum(axis=1)
        split = (against.sum(axis=1)[pairs & (voiced > 0)]) / voiced[pairs & (voiced > 0)]
        margins = np.abs(bench.gap[pairs])

        def mean(values: "NDArray[float64]") -> float | None:
            return float(values.mean()) if values.size else None

        rows.append(
            (
                bench.run,
                bench.iteration,
                len(bench.ids),
                int(pairs.sum()),
                mean(margins),
                float(np.median(margins)) if margins.size else None,
                mean(tie[pairs].astype(float)),
                mean(other[pairs].astype(float)),
                mean(bench.counted.sum(axis=1).astype(float)),
                mean(effective),
                mean(split),
            )
        )
    names = [
        "run",
        "iteration",
        "judged",
        "pairs",
        "margin",
        "median_margin",
        "by_weights",
        "reversed",
        "jury",
        "effective_judges",
        "split",
    ]
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[4:], "float64"))


def margins(found: Frames) -> pd.DataFrame:
    """One row a pair: the size of its margin, and of the margin without weights. run, iteration, combat_id, margin, unweighted."""
    import numpy as np

    parts = []
    for bench in benches(found):
        plain = bench.means(np.ones_like(bench.weights))
        sign = np.where(bench.winner == 0, 1.0, -1.0)
        frame = pd.DataFrame(
            {
                "run": bench.run,
                "iteration": bench.iteration,
                "combat_id": bench.ids,
                "margin": sign * bench.gap,
                "unweighted": sign * (plain[:, 0] - plain[:, 1]),
            }
        )
        parts.append(frame[bench.winner >= 0])
    return pd.concat(parts, ignore_index=True)
