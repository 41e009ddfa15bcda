"""The figures of the paper from runs of one's own: 2 (other levels), 3 and 4 (pools), 5 and 12 (performance against reputation), 13 (the same by iteration).

Each function returns a matplotlib Figure or raises Absent with the reason. Figure 6 is about diversity; it is in analysis/diversity.py.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import correlation
from analysis.drawing import INK, WIDTH, legend, panels, style_of, styled
from analysis.frames import Frames
from analysis.paper_tables import MEAN, table7
from analysis.pieces import Absent
from analysis.scoreboard import Score, scoreboard
from sparta.evaluation.selection import INITIAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUR = ("medqa", "gsm8k", "com2", "alpaca")
"""The tasks of Figure 5, where a run has them."""


@styled
def figure2(found: Frames) -> "Figure":
    """Scores on tasks that a run was not trained on: one group of bars for each task (and level that was trained on), one bar a method."""
    frame = table7(found).frame
    frame = frame[[column for column in frame.columns if MEAN not in column.split(", ")]]
    figure, [axis] = panels(1, height=3.2, width=max(5.0, 1.1 * len(frame.columns) + 1.5))
    width = 0.8 / len(frame)
    for number, (method, row) in enumerate(frame.iterrows()):
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(frame.columns))]
        style = style_of(number)
        axis.bar(
            places,
            row.tolist(),
            width * 0.92,
            color=style["color"],
            label=str(method),
            hatch="" if number < 6 else "//",
        )
    axis.set_xticks(range(len(frame.columns)), [column.replace(", ", "\n") for column in frame.columns])
    axis.set_ylabel("test score")
    axis.grid(axis="x", visible=False)
    legend(figure, axis)
    return figure


def pool_size(found: Frames) -> "Figure":
    """Figure 3: the test score over the size of the pool, of a study with an axis `models`."""
    return by_level(found, "models", "models in the pool")


def pool_diversity(found: Frames) -> "Figure":
    """Figure 4: the test score over a x b, a distinct models repeated b times each, of a study with an axis `pool`."""
    return by_level(found, "pool", "distinct models x copies")


@styled
def by_level(found: Frames, axis: str, label: str) -> "Figure":
    """Test scores over the levels of an axis of a study, one panel a task: mean and every seed, and each level's best initial model. The title says the change from the first level to the last."""
    if found.study is None or axis not in found.study.axes:
        known = "no study" if found.study is None else f"a study with the axes {', '.join(found.study.axes)}"
        raise Absent(f"this needs a study with an axis {axis}, and this is {known}")
    levels = [str(level) for level in found.study.axes[axis]]
    board = scoreboard(found, axis)
    columns = board.columns
    figure, axes = panels(len(columns), width=WIDTH * min(4, max(2, len(columns))))
    for column, place in zip(columns, axes, strict=True):
        scores: dict[int, Score] = {
            at: board.cells[level, column]
            for at, level in enumerate(levels)
            if (level, column) in board.cells
        }
        means = {at: score.mean for at, score in scores.items()}
        place.plot(
            list(means), list(means.values()), "-o", color=style_of(0)["color"], label="mean over seeds"
        )
        for at, score in scores.items():
            values = [each.mean for each in score.by_seed.values()]
            place.plot(
                [at] * len(values), values, ".", color=INK, alpha=0.6, label="one seed" if at == 0 else None
            )
        before = {
            at: board.initial[level, column].mean
            for at, level in enumerate(levels)
            if (level, column) in board.initial
        }
        place.plot(list(before), list(before.values()), color=INK, linestyle=":", marker="_", label=INITIAL)
        place.set_xticks(range(len(levels)), levels)
        place.set_title(", ".join(column) + _change(means, len(levels)))
        place.set_xlabel(label)
    axes[0].set_ylabel("test score")
    legend(figure, axes[0])
    return figure


def _change(means: Mapping[int, float], levels: int) -> str:
    if 0 not in means or levels - 1 not in means or not means[0]:
        return ""
    return f": {means[levels - 1] / means[0] - 1:+.1%}".replace("%", " %")


def figure5(found: Frames) -> "Figure":
    """Figure 12 for the tasks that the paper shows in its text; for all of them where a run has none of these."""
    tasks = [task for task in FOUR if task in set(found.scores.task)]
    return figure12(found, tasks or None)


@styled
def figure12(found: Frames, tasks: Sequence[str] | None = None) -> "Figure":
    """Mean reputation against mean performance, one panel a task, one point a model, with r and its interval."""
    return _scatter(found, correlation.mean_points(found), correlation.correlations(found), tasks)


@styled
def figure13(found: Frames) -> "Figure":
    """The same with a point for each model and iteration."""
    return _scatter(
        found, correlation.points(found), correlation.correlations(found, every_iteration=True), None
    )


def _scatter(found: Frames, data: pd.DataFrame, r: pd.DataFrame, tasks: Sequence[str] | None) -> "Figure":
    if len(found.sources) > 1:
        raise Absent("this figure is of one run: name the state of one")
    names = [task for task in data.task.cat.categories if tasks is None or task in tasks]
    figure, axes = panels(len(names), height=3.2, width=WIDTH * min(4, max(2, len(names))))
    known = r.set_index("task")
    for task, axis in zip(names, axes, strict=True):
        mine = data[data.task == task]
        for number, model in enumerate(found.models):
            points = mine[mine.model == model]
            style = {**style_of(number), "linestyle": "none"}
            axis.plot(points.performance, points.reputation, alpha=0.85, label=model, **style)
        axis.set_title(f"{task}\n{_fit(axis, mine, known.loc[task])}")
        axis.set_xlabel("validation score")
    axes[0].set_ylabel("reputation")
    legend(figure, axes[0])
    return figure


def _fit(axis: Any, points: pd.DataFrame, r: pd.Series) -> str:
    """Draw the regression line. Returns r with its intervals, or the reason where it is not defined."""
    import numpy as np

    if r.remark:
        return f"r is not defined: {r.remark}"
    slope, start = np.polyfit(points.performance, points.reputation, 1)
    ends = np.array([points.performance.min(), points.performance.max()])
    axis.plot(ends, start + slope * ends, "--", color=INK, linewidth=1)
    return "\n".join(
        f"{name} {r[key]:.2f}" + _interval(r[f"{key}_low"], r[f"{key}_high"])
        for name, key in (("Pearson", "pearson"), ("Spearman", "spearman"))
    )


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f" ({low:.2f} to {high:.2f})"
