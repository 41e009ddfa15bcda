"""Tables to browse a run by iteration, model and task: every number of a model in an iteration in one row, and every score."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.frames import Frames
from analysis.html_page import Block, Filter, table_markup
from sparta.evaluation.tables import in_figures

Row = tuple[dict[str, str], list[Any]]
NONE = "–"


def filters_of(found: Frames) -> list[Filter]:
    """What rows can be chosen by; only those with a choice."""
    iterations = sorted({int(t) for t in found.iterations.iteration})
    tasks = list(dict.fromkeys(found.scores.task.astype(str)))
    known = (
        ("run", "Run", [source.label for source in found.sources]),
        ("iteration", "Iteration", [str(t) for t in iterations]),
        ("model", "Model", list(found.models)),
        ("task", "Task", tasks),
    )
    return [Filter(name, label, options) for name, label, options in known if len(options) > 1]


def models_block(found: Frames) -> Block:
    """One row for each iteration and model: standing, combats, judging, training."""
    several = len(found.sources) > 1
    key = ["run", "iteration", "model"]
    table = found.standings.set_index(key)[["reputation", "change", "deviation", "weight"]]
    table = table.join(_won(found)).join(_judged(found)).join(_trained(found))
    rows: list[Row] = []
    for (run, t, model), row in table.sort_index(level=["run", "iteration"], sort_remaining=False).iterrows():
        data = {"run": str(run), "iteration": str(t), "model": str(model)}
        cells = [model, *([run] if several else []), t]
        cells += [
            _text(row.reputation, ".1f"),
            _text(row.change, "+.1f"),
            _text(row.deviation, ".2f"),
            _text(row.weight, ".1f"),
            NONE if pd.isna(row.won) else f"{row.won:.0f}/{row.met:.0f}",
            NONE if pd.isna(row.votes) else f"{row.missing:.0f}/{row.votes:.0f}",
            _text(row["mean vote"], ".2f"),
            _text(row.loss, ".4f"),
        ]
        rows.append((data, cells))
    headings = [
        "model",
        *(["run"] if several else []),
        "iteration",
        "reputation",
        "change",
        "deviation",
        "judging weight",
    ]
    headings += ["won", "missing votes", "mean vote", "loss"]
    caption = "Every model after every iteration"
    notes = (
        "judging weight: in that iteration. won: of the combats that made a pair. missing votes: of all its votes. mean vote: how lenient it is as a judge. loss: mean of its training.",
    )
    return Block("By iteration and model", table_markup(caption, headings, rows), notes)


def scores_block(found: Frames) -> Block | None:
    """One row for each task, checkpoint, split and metric; None if nothing was scored."""
    if found.scores.empty:
        return None
    several = len(found.sources) > 1
    rows: list[Row] = []
    for row in found.scores.itertuples():
        data = {
            "run": str(row.run),
            "iteration": str(row.iteration),
            "model": str(row.model),
            "task": str(row.task),
        }
        gone = int(row.ungraded) + int(row.missing)
        cells = [row.checkpoint, *([row.run] if several else []), row.task, row.split, row.metric]
        cells += [
            in_figures(None if pd.isna(row.mean) else float(row.mean), float(row.top)),
            f"{row.items:,}",
            f"{gone:,}",
        ]
        rows.append((data, cells))
    headings = [
        "checkpoint",
        *(["run"] if several else []),
        "task",
        "split",
        "metric",
        "mean",
        "items",
        "ungraded",
    ]
    notes = ("ungraded: items without a score, left out of the mean.",)
    return Block("By task and checkpoint", table_markup("Every score", headings, rows), notes)


def _won(found: Frames) -> pd.DataFrame:
    pairs = found.combats[found.combats.winner.notna()]
    key = ["run", "iteration"]
    won = pairs.groupby([*key, "winner"], observed=True).size()
    lost = pairs.groupby([*key, "loser"], observed=True).size()
    names = [*key, "model"]
    both = pd.concat(
        [won.rename_axis(names).rename("won"), lost.rename_axis(names).rename("lost")], axis=1
    ).fillna(0)
    both["met"] = both.won + both.lost
    return both[["won", "met"]]


def _judged(found: Frames) -> pd.DataFrame:
    votes = found.votes.groupby(["run", "iteration", "judge"], observed=True).score
    judged = votes.agg(votes="size", given="count", mean="mean").rename_axis(["run", "iteration", "model"])
    judged["missing"] = judged.votes - judged.given
    return judged.rename(columns={"mean": "mean vote"})[["votes", "missing", "mean vote"]]


def _trained(found: Frames) -> pd.DataFrame:
    learned = found.training.set_index(["run", "iteration", "model"])
    return learned[["mean_loss"]].rename(columns={"mean_loss": "loss"})


def _text(value: Any, form: str) -> str:
    return NONE if pd.isna(value) else format(float(value), form)


def keep_blocks(blocks: Sequence[Block | None]) -> list[Block]:
    """Those that there are."""
    return [block for block in blocks if block is not None]
