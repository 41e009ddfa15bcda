"""The tables of the paper from runs of one's own: 1 (main results), 3 (ablations), 4 (splits), 5 (facets), 6 (who is best), 7 (other levels).

Each function returns a Table (its values are `.frame`) or raises Absent with the reason. paper: add the paper's numbers, where it has the same row.
Tables 2 and 8 are about diversity and need sampled answers; they are in analysis/diversity.py.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from analysis.frames import Frames
from analysis.pieces import Absent, Table, plain_table
from analysis.run_rows import OWN
from analysis.scoreboard import Column, Scoreboard, scoreboard
from sparta.evaluation.selection import INITIAL, LAST

LEVEL = 0.05
"""A difference with a smaller p gets a star."""
PAPER = "paper"
ABLATIONS = ("no_reputation_updates", "no_downweighting", "no_randomness", "no_top_k")
"""Levels of sparta/recipes/studies/table3.yaml."""
MEAN = "mean"


def table1(found: Frames, paper: bool = False) -> Table:
    """Test scores by task: the best initial model (where all rows have the same), then every method (of a study: every level of the axis that it compares)."""
    return _compared(
        scoreboard(found), "test scores of the checkpoints chosen on validation", "table1" if paper else None
    )


def table3(found: Frames, paper: bool = False) -> Table:
    """Ablations: the rows of Table 1 that are the level which a study compares with, and those that leave out a part of the method."""
    if found.study is None:
        raise Absent(
            "ablations are cells of a study, and this is none: run jobs/study.py with the study table3 or toy"
        )
    _, reference = found.study.reference
    board = scoreboard(found).only(lambda row, _: row in (reference, *ABLATIONS))
    if not {row for row, _ in board.cells} & set(ABLATIONS):
        raise Absent(
            f"no cell of this study is an ablation ({', '.join(ABLATIONS)}) with scores on a test split"
        )
    return _compared(board, "ablations: test scores", "table3" if paper else None)


def table4(found: Frames, paper: bool = False) -> Table:
    """The splits as used: instructions that were trained on, and items that were scored."""
    splits = found.splits
    if splits.empty:
        raise Absent("no split is in use yet")
    used = splits.groupby(["task", "split"], observed=True)["items"].agg(["min", "max"])
    frame = used["max"].unstack("split").astype("Int64")
    order = [name for name in ("train", "validation", "test") if name in frame.columns]
    frame = frame[order].rename_axis(columns=None)
    notes = []
    if differing := sorted({task for (task, _), row in used.iterrows() if row["min"] != row["max"]}):
        notes.append(f"Runs used different numbers of items of {', '.join(differing)}; the largest is shown.")
    if paper:
        theirs = _of_paper("table4")
        for name in order:
            frame[f"{name} (paper)"] = pd.array(
                [theirs.get(task, {}).get((name,)) for task in frame.index], dtype="Int64"
            )
    return plain_table("Items of each task by split, as used", frame, tuple(notes))


def table5(found: Frames, paper: bool = False) -> Table:
    """The further metrics of tasks that have several, such as the facets of MedQA, on the same checkpoints as in Table 1."""
    board = scoreboard(found, facets=True)
    return _compared(board, "further metrics on the test split", "table5" if paper else None)


def table6(found: Frames) -> Table:
    """Which model was the best at the start and which at the end, by validation."""
    choices = found.choices.drop_duplicates(["run", "task", "chosen_on", "what"])
    if choices.empty:
        raise Absent("no checkpoint was chosen yet: score the run with jobs/evaluate.py")
    wide = choices.astype(object).pivot(
        index=["run", "task", "chosen_on"], columns="what", values=["model", "validation"]
    )
    frame = pd.DataFrame({"initial best": wide["model"].get(INITIAL), "last best": wide["model"].get(LAST)})
    frame["the same"] = frame["initial best"] == frame["last best"]
    frame["initial validation"] = wide["validation"].get(INITIAL).astype(float)
    frame["last validation"] = wide["validation"].get(LAST).astype(float)
    frame.index.names = ["run", "task", "chosen on"]
    same = [level for level in ("run",) if frame.index.get_level_values(level).nunique() == 1]
    if (frame.index.get_level_values("task") == frame.index.get_level_values("chosen on")).all():
        same.append("chosen on")
    frame = frame.droplevel(same) if len(same) < 3 else frame
    changed = int((~frame["the same"]).sum())
    note = f"The best model changed in {changed} of {len(frame)} cases."
    frame["the same"] = frame["the same"].map({True: "yes", False: "no"})
    return plain_table("The best model of the initial and of the last pool", frame, (note,))


def table7(found: Frames, paper: bool = False) -> Table:
    """Scores on tasks that a run was not trained on, for a study whose runs are trained on one task and scored on several."""
    trained = dict(zip(found.runs.run, found.runs.task, strict=True))
    board = scoreboard(found).only(lambda row, _: row != INITIAL)
    kept = {
        (row, column)
        for (row, column), score in board.cells.items()
        if {trained[each.run] for each in score.by_seed.values()}.isdisjoint({column[-1], OWN})
    }
    if not kept:
        raise Absent(
            "no run that was trained on one task was scored on others: set evaluation.tasks, and evaluate again"
        )
    return _compared(
        board.only(lambda *key: key in kept),
        "test scores on tasks that a run was not trained on",
        "table7" if paper else None,
        means=True,
    )


def _compared(board: Scoreboard, title: str, paper: str | None, means: bool = False) -> Table:
    """The scoreboard as a table: the best, the second, a star where the best differs significantly from the second."""
    rows, columns = board.rows, list[Column]()
    tops = {column: score.top for (_, column), score in board.cells.items()}
    for column in board.columns:
        columns.append(column)
        group = [other for other in board.columns if other[:-1] == column[:-1]]
        # A mean of accuracies and grades says nothing.
        if means and column == group[-1] and len({tops[other] for other in group}) == 1:
            columns.append((*column[:-1], MEAN))
    values = {
        (row, column): board.cells[row, column].mean
        for row in rows
        for column in columns
        if (row, column) in board.cells
    }
    for row in rows:
        for column in columns:
            parts = [(row, other) for other in board.columns if other[:-1] == column[:-1]]
            if column[-1] == MEAN and column not in board.columns and values.keys() >= set(parts):
                values[row, column] = fmean(values[part] for part in parts)
    spreads = {key: score.spread for key, score in board.cells.items()}
    best, second, starred = set(), set(), set()
    for place, column in enumerate(columns):
        there = sorted({values[row, column] for row in rows if (row, column) in values}, reverse=True)
        for number, row in enumerate(rows):
            if len(there) > 1 and values.get((row, column)) == there[0]:
                best.add((number, place))
                difference = board.differences.get(column)
                if difference is not None and difference.p_holm < LEVEL and difference.difference > 0:
                    starred.add((number, place))
            elif len(there) > 1 and values.get((row, column)) == there[1]:
                second.add((number, place))
    shown = [
        [
            _text(values.get((row, column)), tops.get(column, 1.0), spreads.get((row, column)))
            for column in columns
        ]
        for row in rows
    ]
    numbers = [[values.get((row, column)) for column in columns] for row in rows]
    labels = list(rows)
    if paper is not None:
        theirs = _of_paper(paper)
        for row in theirs:
            given = [theirs[row].get(column) for column in columns]
            if any(value is not None for value in given):
                labels.append(f"{row} ({PAPER})")
                numbers.append(given)
                shown.append(
                    [
                        _text(value, tops.get(column, 1.0), None)
                        for value, column in zip(given, columns, strict=True)
                    ]
                )
    index = pd.Index(labels, name=board.rows_are)
    heads = _headings(columns)
    frame = pd.DataFrame(numbers, index=index, columns=heads, dtype="float64")
    return Table(
        f"{title[0].upper()}{title[1:]}",
        frame,
        pd.DataFrame(shown, index=index, columns=heads, dtype="str"),
        frozenset(best),
        frozenset(second),
        frozenset(starred),
        tuple(_notes(board)),
    )


def _notes(board: Scoreboard) -> list[str]:
    notes = ["Bold is the best of a column, underlined the second.", *board.notes]
    if board.differences:
        seeds = {difference.seeds for difference in board.differences.values()}
        test = (
            "a paired permutation test over the test items"
            if seeds == {1}
            else "a paired test over seeds and test items"
        )
        count = len(board.differences)
        notes.append(
            f"A star: the best is better than the second, p < {LEVEL} by {test}, corrected by Holm for {count} column{'s' * (count > 1)}; "
            "what the best is was seen on the same items."
        )
    if any(score.spread is not None for score in board.cells.values()):
        notes.append("±: the standard deviation over seeds.")
    return notes


def _headings(columns: Sequence[Column]) -> list[str]:
    return [", ".join(column) for column in columns]


def _text(value: float | None, top: float, spread: float | None) -> str:
    if value is None:
        return "-"
    digits = 3 if top == 1 else 2
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")


@cache
def _of_paper(table: str) -> Mapping[str, Mapping[Column, float]]:
    """The paper's numbers by row and column."""
    known: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8")
    )[table]
    columns = [tuple(column) if isinstance(column, list) else (column,) for column in known["columns"]]
    return {row: dict(zip(columns, values, strict=True)) for row, values in known["rows"].items()}
