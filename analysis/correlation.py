"""Performance against reputation (Figures 5, 12 and 13): Pearson's and Spearman's r, with the interval that so few models allow.

The interval is the percentile interval of a bootstrap over models, because the points of one model depend on each other. Ten points alone say little.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analysis.frames import Frames
from analysis.pieces import Absent

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

RESAMPLES = 9999
FEWEST = 3
"""Models below which r is not computed: two points always lie on a line."""


def points(found: Frames) -> pd.DataFrame:
    """One row a run, task, model and iteration from the first on: mean validation score by the task's first metric, and reputation after it.

    Raises Absent where checkpoints were not scored, or models have no reputations.
    """
    if found.combats.empty:
        raise Absent(
            "there are no combats yet, so reputations have not moved (methods that align one model have none)"
        )
    scores = found.scores
    scores = scores[
        (scores.split == "validation") & scores.selects & (scores.iteration > 0) & scores["mean"].notna()
    ]
    if scores.empty:
        raise Absent(
            "no trained checkpoint was scored on validation yet: score the run with jobs/evaluate.py --all"
        )
    keys = ["run", "iteration", "model"]
    left = scores[[*keys, "task", "metric", "mean"]].rename(columns={"mean": "performance"})
    standings = found.standings[[*keys, "reputation", "deviation"]]
    plain = {"run": str, "model": str}
    made = left.astype(plain).merge(standings.astype(plain), on=keys, validate="many_to_one")
    tasks = list(scores.task.cat.categories)
    models = [model for model in found.models if model in set(made.model)]
    return made.assign(
        task=pd.Categorical(made.task, [task for task in tasks if task in set(made.task)]),
        model=pd.Categorical(made.model, models),
    )


def mean_points(found: Frames) -> pd.DataFrame:
    """One row a run, task and model: both means over the iterations that were scored."""
    by = points(found).groupby(["run", "task", "model"], observed=True, sort=True)
    return by.agg(
        performance=("performance", "mean"),
        reputation=("reputation", "mean"),
        iterations=("iteration", "size"),
    ).reset_index()


def correlations(found: Frames, every_iteration: bool = False, seed: int = 0) -> pd.DataFrame:
    """One row a run and task: pearson and spearman with low and high ends, points, models, and a remark where r is not defined.

    every_iteration: of the points of all iterations (Figure 13), else of each model's means (Figures 5 and 12).
    """
    data = points(found) if every_iteration else mean_points(found)
    rows = []
    for (run, task), group in data.groupby(["run", "task"], observed=True):
        row: dict[str, object] = {
            "run": run,
            "task": task,
            "points": len(group),
            "models": group.model.nunique(),
        }
        row["remark"] = undefined(group)
        for name in ("pearson", "spearman"):
            of = _of_ranks if name == "spearman" else _pearson
            values = (None, None, None) if row["remark"] else with_interval(group, of, seed)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        rows.append(row)
    numbers = [f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_low", "_high")]
    frame = pd.DataFrame(rows, columns=["run", "task", "points", "models", *numbers, "remark"])
    return frame.astype(dict.fromkeys(numbers, "float64"))


def undefined(group: pd.DataFrame) -> str:
    """Why r of these points is not defined; "" where it is."""
    if group.model.nunique() < FEWEST:
        return f"fewer than {FEWEST} models"
    for name in ("reputation", "performance"):
        if group[name].nunique() == 1:
            return f"{name}s are all equal" if name == "reputation" else "scores are all equal"
    return ""


Statistic = Callable[["NDArray[float64]", "NDArray[float64]"], "NDArray[float64]"]


def with_interval(
    group: pd.DataFrame, statistic: Statistic, seed: int = 0, level: float = 0.95
) -> tuple[float, float | None, float | None]:
    """r and the ends of its interval. Resamples in which r is not defined do not count; without an end where half of them are such."""
    import numpy as np

    x = group.performance.to_numpy(dtype=float)
    y = group.reputation.to_numpy(dtype=float)
    codes = pd.factorize(group.model)[0]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    value = float(statistic(x[None], y[None])[0])
    dice = np.random.default_rng(seed)
    drawn = dice.integers(len(members), size=(RESAMPLES, len(members)))
    if len({len(each) for each in members}) == 1:
        places = np.stack(members)[drawn].reshape(RESAMPLES, -1)
        made = statistic(x[places], y[places])
    else:
        made = np.concatenate(
            [
                statistic(x[at][None], y[at][None])
                for at in (np.concatenate([members[m] for m in row]) for row in drawn)
            ]
        )
    made = made[np.isfinite(made)]
    if 2 * len(made) < RESAMPLES:
        return value, None, None
    low, high = np.quantile(made, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def _pearson(x: "NDArray[float64]", y: "NDArray[float64]") -> "NDArray[float64]":
    """Pearson's r of each row of [resamples, points]; NaN where one of the two is constant."""
    import numpy as np

    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    # Rounding leaves something of a constant.
    flat = (np.ptp(x, axis=1) == 0) | (np.ptp(y, axis=1) == 0)
    r: NDArray[float64] = np.divide((x * y).sum(axis=1), scale, out=np.full(len(x), np.nan), where=~flat)
    return np.clip(r, -1, 1)


def _of_ranks(x: "NDArray[float64]", y: "NDArray[float64]") -> "NDArray[float64]":
    """Spearman's r: Pearson's of the ranks, ties with their mean rank."""
    from scipy.stats import rankdata

    return _pearson(rankdata(x, axis=1), rankdata(y, axis=1))


def mean_of_r(frame: pd.DataFrame, name: str = "pearson") -> float | None:
    """The mean of r over tasks, as the paper reports; None where no r is defined."""
    values: Sequence[float] = frame[name].dropna().tolist()
    return sum(values) / len(values) if values else None
