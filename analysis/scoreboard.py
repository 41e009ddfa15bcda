"""Test scores of what was chosen on validation, side by side: rows are methods (or the levels of another axis), columns are tasks (Tables 1, 3, 5, 7).

The score of a run is that of the best of all checkpoints; where only the last pool was scored, the best of that. Over seeds it is the mean.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from analysis import chosen
from analysis.frames import AXIS, Frames
from analysis.pieces import Absent
from sparta.evaluation.across_seeds import difference_over_seeds, holm, spread
from sparta.evaluation.selection import ALL, INITIAL, LAST
from sparta.evaluation.statistics import paired
from sparta.names import suggested
from sparta.studies.layout import SEED

Column = tuple[str, ...]
"""Levels of further axes, where they are needed to tell cells apart; the task; the metric, where it is not the task's first."""


class ChosenScore(NamedTuple):
    """The test score of one choice of one run. values: by item."""

    run: str
    seed: int
    what: str
    task: str
    metric: str
    checkpoint: str
    mean: float
    top: float
    levels: Mapping[str, str]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """One row and column: the test scores by seed."""

    by_seed: Mapping[int, ChosenScore]

    @property
    def top(self) -> float:
        """The metric's best value."""
        return next(iter(self.by_seed.values())).top

    @property
    def mean(self) -> float:
        return fmean(each.mean for each in self.by_seed.values())

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; None for one."""
        return spread([each.mean for each in self.by_seed.values()])


class Difference(NamedTuple):
    """The best of a column minus the second best. p_holm: p adjusted for all columns of the table. seeds: common ones."""

    difference: float
    p: float
    p_holm: float
    seeds: int


@dataclass(frozen=True)
class Scoreboard:
    """Scores by row and column. rows_are: what a row is: a method, a run, or the name of a study's axis.

    initial: by row and column, the best initial models of the runs of that row. They are a row of their own in the columns where all rows have the same.
    notes: sentences about how the scores came about.
    """

    cells: Mapping[tuple[str, Column], Score]
    rows_are: str = "method"
    initial: Mapping[tuple[str, Column], Score] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[Column]:
        return list(dict.fromkeys(column for _, column in self.cells))

    def ranked(self, column: Column) -> list[str]:
        """The rows that have a score in `column`, the best first."""
        found = [row for row, other in self.cells if other == column]
        return sorted(found, key=lambda row: -self.cells[row, column].mean)

    @cached_property
    def differences(self) -> dict[Column, Difference]:
        """The best against the second best, for each column where both have items and a seed in common."""
        tested = {}
        for column in self.columns:
            rows = self.ranked(column)
            found = _difference(*(self.cells[row, column] for row in rows[:2])) if len(rows) > 1 else None
            if found is not None:
                tested[column] = found
        adjusted = holm({column: p for column, (_, p, _) in tested.items()})
        return {
            column: Difference(difference, p, adjusted[column], seeds)
            for column, (difference, p, seeds) in tested.items()
        }

    def only(self, keep: Callable[[str, Column], bool]) -> "Scoreboard":
        """The cells for which `keep` holds."""
        kept = {key: score for key, score in self.cells.items() if keep(*key)}
        return replace(self, cells=kept)


def _difference(a: Score, b: Score) -> tuple[float, float, int] | None:
    """Mean difference, p of a paired test over common items (and seeds, if there are several), and the number of common seeds."""
    pairs = [
        (ours.values, b.by_seed[seed].values)
        for seed, ours in a.by_seed.items()
        if seed in b.by_seed and ours.values.keys() & b.by_seed[seed].values.keys()
    ]
    if not pairs:
        return None
    if len(pairs) == 1:
        one = paired(*pairs[0])
        return one.difference, one.p, 1
    several = difference_over_seeds([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    return several.difference, several.p, several.seeds


def scoreboard(found: Frames, axis: str | None = None, facets: bool = False) -> Scoreboard:
    """The scoreboard of a run, several runs or a study. axis: of a study, whose levels are the rows (default: the one that the study compares).

    The first row is the best initial model, where it is the same for all rows. facets: columns are all metrics but each task's first. A score is that of
    the choice that counts for its task, see chosen.py. Raises Absent where no test split was scored.
    """
    choices = chosen.counted(found)
    choices = choices[choices["mean"].notna() & (choices.selects != facets)]
    tested = list(_tested(found, choices))
    if not tested:
        raise _unscored(found, facets)
    axis = axis or (found.study.reference[0] if found.study else None)
    others = [name for name in (found.study.axes if found.study else ()) if name not in (axis, SEED)]
    # The axis `task` of a study says what the columns say already, unless a run is scored on several tasks.
    needed = others if _ambiguous(tested, axis) else []
    kinds = {(each.run, each.task): ALL for each in tested if each.what == ALL}
    initial: dict[tuple[str, Column], dict[int, ChosenScore]] = {}
    later: dict[tuple[str, Column], dict[int, ChosenScore]] = {}
    for each in tested:
        if each.what not in (INITIAL, kinds.get((each.run, each.task), LAST)):
            continue
        levels = tuple(each.levels[name] for name in needed)
        column = (*levels, each.task, *([each.metric] if facets else []))
        name = each.levels[axis] if axis else each.run if len(found.sources) > 1 else _method(found)
        cells = initial if each.what == INITIAL else later
        cells.setdefault((name, column), {}).setdefault(each.seed, each)
    shared, differing = _shared(initial)
    said = chosen.notes(choices)
    if differing:
        names = "; ".join(", ".join(column) for column in differing)
        said.append(f"The rows have different best initial models, which are no row therefore, in: {names}.")
    rows_are = axis or ("run" if len(found.sources) > 1 else "method")
    first = {(INITIAL, column): Score(by_seed) for column, by_seed in shared.items()}
    return Scoreboard(first | _scores(later), rows_are, _scores(initial), tuple(said))


def _scores(cells: Mapping[tuple[str, Column], Mapping[int, ChosenScore]]) -> dict[tuple[str, Column], Score]:
    return {key: Score(by_seed) for key, by_seed in cells.items()}


def _shared(
    initial: Mapping[tuple[str, Column], Mapping[int, ChosenScore]],
) -> tuple[dict[Column, dict[int, ChosenScore]], list[Column]]:
    """The best initial models by column and seed where all rows that have the seed have the same one with the same score; and the columns where they do not."""
    shared: dict[Column, dict[int, ChosenScore]] = {}
    differing: dict[Column, None] = {}
    for (_, column), by_seed in initial.items():
        for seed, each in by_seed.items():
            known = shared.setdefault(column, {}).setdefault(seed, each)
            if (known.checkpoint, known.mean, known.values) != (each.checkpoint, each.mean, each.values):
                differing[column] = None
    return {column: by_seed for column, by_seed in shared.items() if column not in differing}, list(differing)


def _method(found: Frames) -> str:
    return found.sources[0].run.recipe.method


def _ambiguous(tested: list[ChosenScore], axis: str | None) -> bool:
    """Whether two runs of one row and seed have a score on the same task."""
    if axis is None:
        return False
    seen: dict[tuple[str, int, str], str] = {}
    return any(
        seen.setdefault((each.levels[axis], each.seed, each.task), each.run) != each.run for each in tested
    )


def _tested(found: Frames, choices: pd.DataFrame) -> Iterator[ChosenScore]:
    """The test scores of `choices`, with those of their items."""
    wanted = {(each.run, each.task, each.checkpoint, each.metric) for each in choices.itertuples()}
    if not wanted:
        return
    items = found.item_scores
    items = items[(items.split == "test") & items.checkpoint.isin([key[2] for key in wanted])]
    by_item = {
        key: dict(zip(rows.item_id, rows.score, strict=True))
        for key, rows in items.groupby(["run", "task", "checkpoint", "metric"], observed=True)
        if key in wanted
    }
    rows: list[dict[str, Any]] = choices.astype(object).to_dict("records")
    for row in rows:
        yield ChosenScore(
            run=row["run"],
            seed=row.get(SEED, 0),
            what=row["what"],
            task=row["task"],
            metric=row["metric"],
            checkpoint=row["checkpoint"],
            mean=row["mean"],
            top=row["top"],
            levels={name.removeprefix(AXIS): level for name, level in row.items() if name.startswith(AXIS)},
            values=by_item.get((row["run"], row["task"], row["checkpoint"], row["metric"]), {}),
        )


def _unscored(found: Frames, facets: bool) -> Absent:
    if facets:
        return Absent("no task of this run was graded by more than one metric on its test split")
    if len(found.sources) == 1:
        return Absent(
            f"nothing was scored on a test split yet: run {suggested('evaluate', found.sources[0].run.state.root, '--all')}"
        )
    return Absent("none of these runs was scored on a test split yet: score them with jobs/evaluate.py")
