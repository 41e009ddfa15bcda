"""The first screen of a study's report: every level of the compared axis against the best initial models, over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.frames import Frames
from analysis.headline import LEVEL, Headline, Keep, costs, points
from analysis.html_page import Answer
from analysis.pieces import Absent
from analysis.scoreboard import Column, Scoreboard, scoreboard
from sparta.evaluation.across_seeds import difference_over_seeds, holm
from sparta.evaluation.selection import INITIAL
from sparta.evaluation.tables import in_figures
from sparta.screen import duration

NOTHING = Answer("Did it work?", "Nobody knows yet: no cell was scored on test")


@dataclass(frozen=True)
class LevelGain:
    """A level of the compared axis on one column (a task): means over seeds, and the difference to the best initial models over the seeds that both have, with
    its 95 % interval. p: adjusted for all levels and columns (Holm).
    """

    level: str
    column: Column
    top: float
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    seeds: int

    @property
    def in_words(self) -> str:
        return (
            f"{self.level} on {', '.join(self.column)}: {in_figures(self.before, self.top)} to {in_figures(self.after, self.top)}, "
            f"{points(self.difference, self.top)} (95 % interval {points(self.low, self.top)} to {points(self.high, self.top)}, {self.seeds} seed{'s' * (self.seeds != 1)})"
        )


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def level_gains(board: Scoreboard) -> list[LevelGain]:
    """Every level against the best initial models of its own runs, in the order of the board."""
    made: dict[tuple[str, Column], LevelGain] = {}
    for (level, column), score in board.cells.items():
        initial = board.initial.get((level, column))
        seeds = [seed for seed in score.by_seed if initial is not None and seed in initial.by_seed]
        if level == INITIAL or initial is None or not seeds:
            continue
        ours = [score.by_seed[seed] for seed in seeds]
        theirs = [initial.by_seed[seed] for seed in seeds]
        found = difference_over_seeds([each.values for each in ours], [each.values for each in theirs])
        made[level, column] = LevelGain(
            level,
            column,
            score.top,
            initial.mean,
            score.mean,
            found.difference,
            found.low,
            found.high,
            found.p,
            found.seeds,
        )
    adjusted = holm({key: gain.p for key, gain in made.items()})
    return [replace(gain, p=adjusted[key]) for key, gain in made.items()]


def study_answers(found: Frames, heads: Mapping[str, Headline]) -> list[Answer]:
    """The four answers for a study. heads: those of its cells."""
    try:
        board = scoreboard(found)
    except Absent:
        board = Scoreboard({})
    gains = level_gains(board)
    levels = board.only(lambda row, column: row != INITIAL)
    return [_worked(gains), _keep(heads), _sure(levels), _cost(found, heads)]


def _worked(gains: Sequence[LevelGain]) -> Answer:
    if not gains:
        return NOTHING
    better = sum(gain.p < LEVEL and gain.difference > 0 for gain in gains)
    worse = sum(gain.p < LEVEL and gain.difference < 0 for gain in gains)
    answer = "Yes" if better == len(gains) else "In part" if better else "No" if worse else "Not shown"
    lead = f"{answer}: {better} of {len(gains)} got better than the best initial models, {worse} worse, {len(gains) - better - worse} show no sure difference"
    return Answer("Did it work?", lead, [gain.in_words for gain in gains])


def _keep(heads: Mapping[str, Headline]) -> Answer:
    """Of each task that cells chose their model on, the one with the best validation score, which the test split did not choose."""
    best: dict[str, tuple[float, str, Keep]] = {}
    for label, head in heads.items():
        kept = head.keep
        if kept is None or kept.score is None:
            continue
        if kept.score.task not in best or kept.score.validation > best[kept.score.task][0]:
            best[kept.score.task] = (kept.score.validation, label, kept)
    question = "Which model to keep?"
    if not best:
        return Answer(question, "None can be named yet")
    if len(best) == 1:
        [(_, label, kept)] = best.values()
        return Answer(question, f"{kept.checkpoint} of {label}", [kept.why], kept.commands)
    return Answer(
        question,
        f"One of each of {len(best)} tasks, by validation",
        [f"{task}: {kept.checkpoint} of {label}, {kept.why}" for task, (_, label, kept) in best.items()],
        [command for _, _, kept in best.values() for command in kept.commands],
    )


def _sure(board: Scoreboard) -> Answer:
    """The best level against the second, by column. board: without the initial models."""
    said = [
        f"{', '.join(column)}: {board.ranked(column)[0]} against {board.ranked(column)[1]} {points(found.difference, board.cells[board.ranked(column)[0], column].top)}, "
        f"{_p(found.p_holm)} ({found.seeds} seed{'s' * (found.seeds != 1)})"
        for column, found in board.differences.items()
    ]
    said_of_intervals = "intervals cover items and, with two seeds or more, seeds"
    if not said:
        return Answer("How sure is that?", "No two levels can be compared yet", [said_of_intervals])
    sure = sum(found.p_holm < LEVEL for found in board.differences.values())
    lead = f"The best is better than the second in {sure} of {len(said)} columns"
    return Answer(
        "How sure is that?", lead, [*said, "p is adjusted for all columns (Holm)", said_of_intervals]
    )


def _cost(found: Frames, heads: Mapping[str, Headline]) -> Answer:
    tokens = int(found.iterations[["generated", "read", "trained"]].sum().sum())
    time = found.cost.groupby("unit", observed=True).seconds.sum()
    total = [f"{duration(float(seconds))} of {unit} time" for unit, seconds in time.items() if seconds > 0]
    each = {source.label: costs(found, source, ()) for source in found.sources}
    more = [f"{label}: {'; '.join(lines[:2])}" for label, lines in each.items() if lines]
    return Answer("What did it cost?", ", ".join([*total, f"{tokens:,} tokens", f"{len(heads)} cells"]), more)
