"""table.json: the scores of a study's cells, by configuration and task, over seeds, compared with the reference level.

A configuration is a cell without its seed. Its score is that of the model chosen on validation, on the test split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import msgspec

from sparta.errors import SpartaError
from sparta.evaluation.across_seeds import difference_over_seeds, holm, spread
from sparta.evaluation.items import items_of
from sparta.evaluation.scores import scores
from sparta.evaluation.selection import ALL, INITIAL
from sparta.evaluation.summary import CheckpointChoice, Scale, read_summary, summary_file
from sparta.methods.base import Method
from sparta.methods.registry import method_of
from sparta.names import suggested
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.studies.courses import Course, courses_of
from sparta.studies.grid import Cell, Grid
from sparta.studies.layout import SEED, Configuration, StudyDir, configuration
from sparta.studies.manifest import CellEntry, StudyManifest
from sparta.tasks.base import Split


class Difference(msgspec.Struct, frozen=True):
    """The configuration minus the one at the reference level, by the same metric; see evaluation/across_seeds.py. p_holm: p adjusted for all
    comparisons of the table.
    """

    to: dict[str, str]
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: int
    items: int


class ConfigurationScore(msgspec.Struct, frozen=True):
    """One configuration on one task, by the task's first metric.

    split: test, or validation where the task has no test split. seeds: labels; scores, initial, checkpoints: of the chosen model, and of the best
    initial model (None where it has no score), in the same order. sees_gold: whether the method learns from gold answers, or from a grader that knows them. tokens, gpu_seconds,
    task_seconds: mean per cell. missing: cells without a score yet.
    """

    levels: dict[str, str]
    method: str
    budget: str
    sees_gold: bool
    task: str
    metric: str
    top: float
    split: Split
    seeds: list[str]
    scores: list[float]
    initial: list[float | None]
    checkpoints: list[str]
    mean: float
    spread: float | None
    tokens: float
    gpu_seconds: float
    task_seconds: float
    missing: list[str] = []
    difference: Difference | None = None


class StudyTable(msgspec.Struct, frozen=True):
    """table.json. reference: the axis that is compared, and its level that the others are compared with."""

    study: str
    reference: tuple[str, str]
    rows: list[ConfigurationScore]
    missing: list[str]
    courses: list[Course] = []


@dataclass(frozen=True)
class _Scored:
    """One cell on one task. metric: the task's first one. values: of the chosen checkpoint, by item."""

    entry: CellEntry
    run: Run
    seed: str
    choice: CheckpointChoice
    metric: Scale
    initial: float | None
    score: float
    split: Split
    values: Mapping[str, float]


def table_of(place: StudyDir, grid: Grid, manifest: StudyManifest) -> StudyTable:
    """The table of all cells that are done. Raises SpartaError where answers of one were removed, or where cells were scored on other items."""
    cells = {cell.name: cell for cell in grid.cells}
    done = [entry for entry in manifest.cells if entry.state == "done"]
    found: dict[tuple[Configuration, str], list[_Scored]] = {}
    for entry in done:
        for task, scored in _scored(place, entry).items():
            found.setdefault((configuration(entry.levels), task), []).append(scored)
    missing = [entry.name for entry in manifest.cells if entry.state != "done"]
    rows = {
        key: _row(key, scored, cells, [entry for entry in manifest.cells if entry.name in missing])
        for key, scored in found.items()
    }
    differences = _differences(grid.reference, found)
    return StudyTable(
        study=manifest.name,
        reference=grid.reference,
        rows=[msgspec.structs.replace(row, difference=differences.get(key)) for key, row in rows.items()],
        missing=missing,
        courses=courses_of(place, manifest.cells),
    )


def sees_gold(recipe: Recipe) -> bool:
    """Whether a run of `recipe` learns from gold answers, or from a grader that knows them."""
    preference = recipe.baseline.preference
    return type(method_of(recipe)).gold is not Method.gold or (
        preference is not None and preference.kind == "gold"
    )


def _scored(place: StudyDir, entry: CellEntry) -> dict[str, _Scored]:
    """The scores of a cell by task; nothing of a task without a choice."""
    run, found = Run.open(place.cell(entry.name)), {}
    known = read_summary(run.state).tasks
    for task, choices in (entry.result.choices if entry.result else {}).items():
        by_kind = {choice.what: choice for choice in choices}
        chosen = by_kind.get(ALL)
        if chosen is None:
            continue
        if task not in known:
            raise _without_scores(place, entry, task, run)
        metric, split = known[task].metrics[0], _split(chosen)
        if split == "test" and metric.name not in chosen.test:
            raise _without_scores(place, entry, f"{task} by {metric.name}", run)
        score = _value(chosen, metric, split)
        if score is None:
            continue
        found[task] = _Scored(
            entry=entry,
            run=run,
            seed=entry.levels.get(SEED, ""),
            choice=chosen,
            metric=metric,
            initial=_value(by_kind[INITIAL], metric, split) if INITIAL in by_kind else None,
            score=score,
            split=split,
            values=scores(run, split, task, metric.name, (chosen.checkpoint,))[chosen.checkpoint].values,
        )
    return found


def _without_scores(place: StudyDir, entry: CellEntry, what: str, run: Run) -> SpartaError:
    return SpartaError(
        f"{summary_file(run.state)} has no scores of {what}, which the cell {entry.name} was done with: score the cell again with "
        f"{suggested('study', place.root, '--cell', entry.name)}"
    )


def _split(choice: CheckpointChoice) -> Split:
    return "test" if choice.test else "validation"


def _value(choice: CheckpointChoice, metric: Scale, split: Split) -> float | None:
    """The score of a choice on `split`; None if it has none there."""
    if split == "validation":
        return choice.validation
    measured = choice.test.get(metric.name)
    return None if measured is None else measured.mean


def _row(
    key: tuple[Configuration, str],
    scored: Sequence[_Scored],
    cells: Mapping[str, Cell],
    undone: Sequence[CellEntry],
) -> ConfigurationScore:
    config, task = key
    first = scored[0]
    results = [each.entry.result for each in scored if each.entry.result is not None]
    return ConfigurationScore(
        levels=dict(config),
        method=first.entry.method,
        budget=first.entry.budget,
        sees_gold=sees_gold(cells[first.entry.name].recipe),
        task=task,
        metric=first.metric.name,
        top=first.metric.top,
        split=first.split,
        seeds=[each.seed for each in scored],
        scores=[each.score for each in scored],
        initial=[each.initial for each in scored],
        checkpoints=[each.choice.checkpoint for each in scored],
        mean=fmean(each.score for each in scored),
        spread=spread([each.score for each in scored]),
        tokens=fmean(result.tokens.total for result in results),
        gpu_seconds=fmean(result.gpu_seconds for result in results),
        task_seconds=fmean(result.task_seconds for result in results),
        missing=[entry.name for entry in undone if configuration(entry.levels) == config],
    )


def _differences(
    reference: tuple[str, str], found: Mapping[tuple[Configuration, str], Sequence[_Scored]]
) -> dict[tuple[Configuration, str], Difference]:
    """Each configuration against the one that differs only in being at the reference level, over the seeds that both have."""
    axis, level = reference
    made: dict[tuple[Configuration, str], Difference] = {}
    for (config, task), scored in found.items():
        other = tuple((name, level if name == axis else label) for name, label in config)
        theirs = {each.seed: each for each in found.get((other, task), ())}
        common = [(each, theirs[each.seed]) for each in scored if each.seed in theirs]
        if other == config or not common:
            continue
        for ours, its in common:
            _require_same_items(ours, its, task)
        result = difference_over_seeds([ours.values for ours, _ in common], [its.values for _, its in common])
        made[config, task] = Difference(
            to=dict(other),
            difference=result.difference,
            low=result.low,
            high=result.high,
            p=result.p,
            p_holm=result.p,
            seeds=result.seeds,
            items=result.items,
        )
    adjusted = holm({key: difference.p for key, difference in made.items()})
    return {key: msgspec.structs.replace(made[key], p_holm=adjusted[key]) for key in made}


def _require_same_items(ours: _Scored, theirs: _Scored, task: str) -> None:
    """Raises SpartaError where an item of one id differs: items are paired by id, which may be just a line number."""
    known = {item.item_id: item for item in items_of(theirs.run, task, theirs.split)}
    for item in items_of(ours.run, task, ours.split):
        if known.get(item.item_id, item) != item:
            raise SpartaError(
                f"{task}: the {ours.split} item {item.item_id} differs between the cells {ours.entry.name} and {theirs.entry.name}: compare cells that were "
                "scored on the same data"
            )
