"""Figures of one run that the paper lacks: reputations and weights over time, who beat whom, judges, margins, outcomes, losses, and where the time went.

Each function returns a matplotlib Figure or raises Absent with the reason.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import judging, outcomes
from analysis.drawing import COLOURS, DIVERGING, INK, WIDTH, legend, panels, style_of, styled
from analysis.frames import Frames
from analysis.pieces import Absent
from analysis.run_rows import IDLE
from sparta.arena.preferences import REASONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 12
"""Iterations up to which each has a tick."""


@styled
def reputations(found: Frames) -> "Figure":
    """Reputations with one deviation on either side, and judging weights, over iterations."""
    _one(found)
    if found.combats.empty:
        raise Absent(
            "there are no combats yet, so reputations have not moved (methods that align one model have none)"
        )
    standings = found.standings
    figure, (left, right) = panels(2, columns=2, height=3.6, width=9)
    for number, model in enumerate(found.models):
        mine, style = standings[standings.model == model], style_of(number)
        left.plot(mine.iteration, mine.reputation, label=model, **style)
        band = (mine.reputation - mine.deviation, mine.reputation + mine.deviation)
        left.fill_between(mine.iteration, *band, color=style["color"], alpha=0.12, linewidth=0)
        # Lines of equal weights would hide each other.
        right.plot(mine.iteration, mine.weight + 0.005 * number, **style)
    left.set_ylabel("reputation, with one deviation")
    right.set_ylabel("judging weight (omega), lines shifted")
    for axis in (left, right):
        _by_iteration(axis, standings.iteration)
    legend(figure, left)
    return figure


@styled
def validation(found: Frames) -> "Figure":
    """Validation scores of every model over iterations, one panel a task."""
    _one(found)
    scores = found.scores
    scores = scores[(scores.split == "validation") & scores.selects & scores["mean"].notna()]
    if scores.empty:
        raise Absent("no checkpoint was scored on validation yet: score the run with jobs/evaluate.py --all")
    tasks = [task for task in scores.task.cat.categories if (scores.task == task).any()]
    figure, axes = panels(len(tasks), width=WIDTH * min(4, max(2, len(tasks))))
    for task, axis in zip(tasks, axes, strict=True):
        mine = scores[scores.task == task]
        for number, model in enumerate(found.models):
            curve = mine[mine.model == model].sort_values("iteration")
            axis.plot(curve.iteration, curve["mean"], label=model, **style_of(number))
        axis.set_title(f"{task}: {mine.metric.iloc[0]}")
        _by_iteration(axis, mine.iteration)
    legend(figure, axes[0])
    return figure


@styled
def who_beat_whom(found: Frames) -> "Figure":
    """The share of decided combats that the model of a row won against that of a column; below it, how often they met."""
    _one(found)
    from matplotlib import colormaps

    meetings = outcomes.meetings(found)
    shares, met = outcomes.matrix(meetings, "share"), outcomes.matrix(meetings, "met")
    size = max(3.6, 0.62 * len(shares) + 1.4)
    figure, [axis] = panels(1, height=size, width=size + 0.8)
    axis.grid(visible=False)
    colours = colormaps[DIVERGING].with_extremes(bad="none")
    picture = axis.imshow(shares.to_numpy(dtype=float), cmap=colours, vmin=0, vmax=1)
    for row in range(len(shares)):
        for column in range(len(shares)):
            share, count = shares.iat[row, column], met.iat[row, column]
            if pd.isna(count):
                continue
            text = f"{share:.0%}\n{count:.0f}" if pd.notna(share) else f"-\n{count:.0f}"
            dark = pd.notna(share) and abs(share - 0.5) > 0.32
            ink = INK if pd.isna(share) else "white" if dark else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink)
    axis.set_xticks(range(len(shares)), shares.columns.tolist(), rotation=45, ha="right")
    axis.set_yticks(range(len(shares)), shares.index.tolist())
    axis.set_xlabel("against")
    axis.set_ylabel("won by")
    bar = figure.colorbar(picture, ax=axis, shrink=0.7)
    bar.set_label("share won; below: times met", color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_visible(False)
    return figure


@styled
def judges(found: Frames) -> "Figure":
    """Agreement with the label, leniency and spread of every judge over iterations, and the effective number of judges."""
    _one(found)
    by_judge, by_iteration = judging.judges(found), judging.labels(found)
    figure, axes = panels(4, columns=2, height=3.0, width=9)
    wanted = (
        ("agreement_with_others", "agreement with the other judges"),
        ("leniency", "leniency (points above the others)"),
        ("spread", "spread of its scores"),
    )
    for axis, (column, title) in zip(axes, wanted, strict=False):
        for number, model in enumerate(found.models):
            mine = by_judge[by_judge.judge == model]
            axis.plot(mine.iteration, mine[column], label=model, **style_of(number))
        axis.set_title(title)
    axes[3].plot(
        by_iteration.iteration, by_iteration.jury, "-o", color=COLOURS[0], label="judges that counted"
    )
    axes[3].plot(
        by_iteration.iteration,
        by_iteration.effective_judges,
        "--s",
        color=COLOURS[1],
        label="effective number",
    )
    axes[3].set_title("judges of a combat")
    axes[3].set_ylim(0, 1.1 * by_iteration.jury.max())
    axes[3].legend(frameon=False, labelcolor=INK)
    for axis in axes:
        _by_iteration(axis, by_iteration.iteration)
    legend(figure, axes[0])
    return figure


@styled
def margins(found: Frames) -> "Figure":
    """The distribution of the margins of labels in the first and the last iteration, and the shares that judges' weights decided."""
    _one(found)
    pairs, labels = judging.margins(found), judging.labels(found)
    if pairs.empty:
        raise Absent("no combat made a pair yet")
    figure, (left, right) = panels(2, columns=2, width=9)
    ends = sorted({pairs.iteration.min(), pairs.iteration.max()})
    for number, t in enumerate(ends):
        mine = pairs.margin[pairs.iteration == t].sort_values()
        share = [(place + 1) / len(mine) for place in range(len(mine))]
        left.plot(mine, share, color=COLOURS[number], linestyle=("-", "--")[number], label=f"iteration {t}")
    left.set_xlabel("margin of the label (score points)")
    left.set_ylabel("share of pairs at most this clear")
    left.legend(frameon=False, labelcolor=INK)
    for number, (column, label) in enumerate(
        (("by_weights", "decided by weights alone"), ("reversed", "other way round without weights"))
    ):
        style = style_of(number)
        right.plot(labels.iteration, 100 * labels[column], label=label, **style)
    right.set_ylabel("% of pairs")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, labelcolor=INK)
    _by_iteration(right, labels.iteration)
    return figure


@styled
def shares(found: Frames) -> "Figure":
    """What became of the combats (or prompts), iteration by iteration."""
    _one(found)
    frame = outcomes.shares(found)
    figure, [axis] = panels(1, height=3.0, width=6.5)
    _stacked(axis, frame.iteration, {name: 100 * frame[name] for name in REASONS if frame[name].any()})
    axis.set_ylabel(f"% of {frame.unit.iloc[0]}")
    _by_iteration(axis, frame.iteration)
    legend(figure, axis)
    return figure


@styled
def losses(found: Frames) -> "Figure":
    """The loss of every training, smoothed, one after the other: that of iteration t from t - 1 to t."""
    _one(found)
    curves = outcomes.loss_curves(found)
    figure, [axis] = panels(1, height=3.2, width=9)
    for number, model in enumerate(found.models):
        style = {**style_of(number), "marker": ""}
        for place, (_, part) in enumerate(curves[curves.model == model].groupby("iteration")):
            smooth = part.loss.rolling(max(1, len(part) // 20), min_periods=1, center=True).mean()
            keep = slice(None, None, max(1, len(part) // 60))
            label = model if place == 0 else None
            axis.plot(part.position.iloc[keep], smooth.iloc[keep], alpha=0.8, label=label, **style)
    axis.set_xlabel("iteration")
    axis.set_ylabel("loss")
    first = min(0, int(curves.iteration.min()) - 1)
    axis.set_xticks(range(first, int(curves.iteration.max()) + 1))
    legend(figure, axis)
    return figure


@styled
def time_by_part(found: Frames) -> "Figure":
    """Time of GPUs (or tasks) by what they were spent on, iteration by iteration; idle is grey."""
    _one(found)
    frame = outcomes.time_by_part(found)
    unit = frame.unit.iloc[-1]
    frame = frame[(frame.iteration != "all") & (frame.unit == unit)]
    parts = [
        name
        for name in frame.columns
        if name not in ("run", "unit", "iteration", "all parts", "idle share", IDLE)
    ]
    figure, [axis] = panels(1, height=3.0, width=6.5)
    iterations = frame.iteration.astype(int)
    scale, word = (1 / 3600, "hours") if frame["all parts"].max() >= 3600 else (1, "seconds")
    _stacked(axis, iterations, {name: scale * frame[name] for name in (*parts, IDLE)})
    axis.set_ylabel(f"{unit}-{word}")
    _by_iteration(axis, iterations)
    legend(figure, axis)
    return figure


def _stacked(axis: Any, places: "pd.Series[int]", parts: "dict[str, pd.Series[float]]") -> None:
    """Bars on top of each other; a part called idle is grey."""
    below = pd.Series(0.0, index=places.index)
    number = 0
    for name, values in parts.items():
        colour = INK if name == IDLE else COLOURS[number % len(COLOURS)]
        hatch = "//" if number >= len(COLOURS) and name != IDLE else ""
        alpha = 0.35 if name == IDLE else 0.9
        axis.bar(places, values, 0.75, bottom=below, color=colour, hatch=hatch, alpha=alpha, label=name)
        below, number = below + values, number + (name != IDLE)
    axis.grid(axis="x", visible=False)


def _by_iteration(axis: Any, iterations: "pd.Series[int]") -> None:
    axis.set_xlabel("iteration")
    found = sorted(set(iterations))
    if len(found) <= FEW:
        axis.set_xticks(found)


def _one(found: Frames) -> None:
    if len(found.sources) != 1:
        raise Absent("this figure is of one run: name the state of one")
