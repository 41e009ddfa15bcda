"""The course of a study's configurations over iterations: how good their models are, whether reputation follows skill, how many combats make pairs.

Scores are those on validation, of every checkpoint, by the task's first metric. Only the gain is measured on the test split.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import StatisticsError, correlation, fmean, stdev

import msgspec

from sparta.evaluation.across_seeds import difference_over_seeds
from sparta.evaluation.scores import scores
from sparta.evaluation.selection import ALL, INITIAL
from sparta.evaluation.summary import CheckpointChoice, TaskScores, read_summary
from sparta.methods.registry import method_of
from sparta.phases.undecidable import answer_of
from sparta.store import files, standings
from sparta.store.layout import parse_checkpoint
from sparta.store.records import Response
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats
from sparta.studies.layout import Configuration, StudyDir, configuration
from sparta.studies.manifest import CellEntry
from sparta.tasks.registry import task_named


class MeanOverSeeds(msgspec.Struct, frozen=True):
    """mean: over seeds. low, high: its 95 % interval; None for one seed. seeds: how many have a value."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


class Gain(msgspec.Struct, frozen=True):
    """The chosen model minus the best initial one of the same cell, on the test split; see evaluation/across_seeds.py."""

    difference: float
    low: float
    high: float
    p: float


class Course(msgspec.Struct, frozen=True):
    """One configuration on one task, mean over its seeds.

    best, mean: of the models of each pool, from the initial one on; where iterations are missing in a cell, the list ends. pairs: share of combats that
    made a preference pair, by iteration from the first. follows: Pearson's r, over models, of the mean reputation after the iterations and the mean score of
    the model that earned it. follows_each: the same r within each iteration, mean over iterations. follows_combats: r of the mean reputation and the share
    of right answers in combats, which are sampled; None also where no program grades the instructions. All None without combats, where reputations are frozen, and where
    all models are equal. gain: None where there is no test split.
    """

    levels: dict[str, str]
    task: str
    top: float
    seeds: int
    best: list[float]
    mean: list[float]
    pairs: list[float]
    follows: MeanOverSeeds | None = None
    follows_each: MeanOverSeeds | None = None
    follows_combats: MeanOverSeeds | None = None
    gain: Gain | None = None


@dataclass(frozen=True)
class _CellCourse:
    """One cell on one task. of_pool: by iteration, the score of each model. chosen, initial: test scores by item."""

    top: float
    of_pool: list[dict[str, float]]
    pairs: list[float]
    follows: float | None
    follows_each: float | None
    follows_combats: float | None
    chosen: Mapping[str, float]
    initial: Mapping[str, float]


def courses_of(place: StudyDir, entries: Sequence[CellEntry]) -> list[Course]:
    """The courses of the cells in `entries` that are done."""
    found: dict[tuple[Configuration, str], list[_CellCourse]] = {}
    for entry in entries:
        if entry.state != "done" or entry.result is None:
            continue
        run = Run.open(place.cell(entry.name))
        config = configuration(entry.levels)
        combats = _combats_of(run)
        known = read_summary(run.state).tasks
        for task, choices in entry.result.choices.items():
            if task in known and known[task].validation:
                found.setdefault((config, task), []).append(
                    _course_of_cell(run, combats, task, known[task], choices)
                )
    return [_together(dict(config), task, cells) for (config, task), cells in found.items()]


def over_seeds(values: Sequence[float | None]) -> MeanOverSeeds | None:
    """The mean of correlations over seeds, with a t interval of their Fisher transforms, which stays within -1 and 1; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    # A correlation of exactly 1 has no finite transform.
    transformed = [math.atanh(max(-0.999999, min(0.999999, value))) for value in known]
    middle, count = fmean(transformed), len(known)
    if count == 1:
        return MeanOverSeeds(math.tanh(middle), None, None, 1)
    from scipy.stats import t

    half = stdev(transformed) / math.sqrt(count) * float(t.ppf(0.975, count - 1))
    return MeanOverSeeds(math.tanh(middle), math.tanh(middle - half), math.tanh(middle + half), count)


def _together(levels: dict[str, str], task: str, cells: Sequence[_CellCourse]) -> Course:
    chosen = [cell.chosen for cell in cells if cell.chosen and cell.initial]
    initial = [cell.initial for cell in cells if cell.chosen and cell.initial]
    gain = difference_over_seeds(chosen, initial) if chosen else None
    return Course(
        levels=levels,
        task=task,
        top=cells[0].top,
        seeds=len(cells),
        best=[fmean(map(max, pools)) for pools in _by_iteration(cells)],
        mean=[fmean(map(fmean, pools)) for pools in _by_iteration(cells)],
        pairs=[fmean(shares) for shares in zip(*(cell.pairs for cell in cells), strict=False)],
        follows=over_seeds([cell.follows for cell in cells]),
        follows_each=over_seeds([cell.follows_each for cell in cells]),
        follows_combats=over_seeds([cell.follows_combats for cell in cells]),
        gain=None if gain is None else Gain(gain.difference, gain.low, gain.high, gain.p),
    )


def _by_iteration(cells: Sequence[_CellCourse]) -> list[list[list[float]]]:
    """The scores of the pool of every cell, by iteration that all have."""
    return [
        [list(pool.values()) for pool in pools]
        for pools in zip(*(cell.of_pool for cell in cells), strict=False)
    ]


@dataclass(frozen=True)
class _Combats:
    """What the combats of a cell gave, on whatever task it is scored. pairs: as in Course. reputations: by iteration from the first, of each model; empty where
    they do not move. right: see `right_in_combats`.
    """

    pairs: list[float]
    reputations: list[dict[str, float]]
    right: list[float]


def _combats_of(run: Run) -> _Combats:
    if not method_of(run.recipe).has_reputations:
        return _Combats([], [], [])
    iterations = run.state.committed()[1:]
    # A measurement may be lost: then the list ends.
    stats = [files.read_measured(run.iteration(t).stats, IterationStats) for t in iterations]
    known = takewhile(lambda found: found is not None and found.combats > 0, stats)
    pairs = [found.pairs / found.combats for found in known if found is not None]
    if run.recipe.reputation.frozen:
        return _Combats(pairs, [], [])
    earned = [
        {name: standing.reputation for name, standing in standings.at_end(run, t).items()} for t in iterations
    ]
    return _Combats(pairs, earned, right_in_combats(run))


def _course_of_cell(
    run: Run, combats: _Combats, task: str, known: TaskScores, choices: Sequence[CheckpointChoice]
) -> _CellCourse:
    of_pool = _pools(run, known)
    each: list[tuple[list[float], list[float]]] = []
    # The models of a pool earn their reputations in the iteration after it.
    for scored, earned in zip(of_pool, combats.reputations, strict=False):
        if scored.keys() != set(run.models):
            break
        each.append(([earned[name] for name in run.models], [scored[name] for name in run.models]))
    by_kind = {choice.what: choice for choice in choices if choice.test}
    metric = known.metrics[0].name

    def tested(what: str) -> Mapping[str, float]:
        if what not in by_kind:
            return {}
        name = by_kind[what].checkpoint
        return scores(run, "test", task, metric, (name,))[name].values

    means = [[fmean(values) for values in zip(*side, strict=True)] for side in zip(*each, strict=True)]
    within = [r for reputations, skills in each if (r := _correlation(reputations, skills)) is not None]
    return _CellCourse(
        top=known.metrics[0].top,
        of_pool=of_pool,
        pairs=combats.pairs,
        follows=_correlation(*means) if means else None,
        follows_each=fmean(within) if within else None,
        follows_combats=_correlation(means[0], combats.right) if means and combats.right else None,
        chosen=tested(ALL),
        initial=tested(INITIAL),
    )


def right_in_combats(run: Run) -> list[float]:
    """Of each model, the mean grade of its answers in all combats, by the first metric of the run's task; empty where no program grades them."""
    data = run.recipe.data
    if data.task is None:
        return []
    task = task_named(data.task, data)
    if task.likelihood or task.metrics[0].rubric is not None:
        return []
    items = {item.item_id: item for item in task.items("train", data)}
    grades: dict[str, list[float]] = {name: [] for name in run.models}
    for t in run.state.committed()[1:]:
        asked = {combat.combat_id: items[combat.prompt_id] for combat in run.plan(t)}
        for row in iter_shards(run.iteration(t).responses, Response):
            grade = task.grade(asked[row.combat_id], answer_of(row)).get(task.metrics[0].name)
            if grade is not None:
                grades[row.model].append(grade)
    return [fmean(found) for found in grades.values()] if all(grades.values()) else []


def _pools(run: Run, known: TaskScores) -> list[dict[str, float]]:
    """By iteration from 0, the score of each model on validation; the list ends before the first iteration without any."""
    found: dict[int, dict[str, float]] = {}
    for checkpoint, score in known.validation.items():
        t, name = parse_checkpoint(checkpoint)
        if score is not None:
            found.setdefault(t, {})[name] = score
    return [found[t] for t in range(len(found)) if all(earlier in found for earlier in range(t + 1))]


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Pearson's r; None where one side is constant or has fewer than two values."""
    try:
        return correlation(ours, theirs)
    except StatisticsError:
        return None
