"""The rows of one run's evaluations, as columns of the frames: answers, scores by item, their means, choices and comparisons.

An evaluation may be under way: what is not answered or graded yet counts as missing. Scores are those of sparta/evaluation/scores.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, get_args

from analysis.frame_columns import FRAMES, Columns
from analysis.run_rows import OWN, Rows
from sparta.chat.judge_prompts import question_text
from sparta.evaluation.answer import Answers
from sparta.evaluation.grade import Grades, has_answer
from sparta.evaluation.items import items_file, items_of
from sparta.evaluation.summary import read_summary
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import parse_checkpoint
from sparta.store.records import Answer, Grade, grade_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.registry import TASKS, task_named


class ScoredSplit(NamedTuple):
    """One split of a task: its answers, their scores by item, and the means of its checkpoints."""

    answers: Columns
    item_scores: Columns
    scores: Columns


def in_order(tasks: Iterable[str]) -> list[str]:
    """Names of tasks in the paper's order, others behind them."""
    known = list(TASKS)
    return sorted(tasks, key=lambda task: (known.index(task) if task in known else len(known), task))


def splits_of(run: Run) -> list[tuple[str, Split]]:
    """The tasks and splits that were scored, or are being scored."""
    tasks = in_order(path.name for path in run.state.evals.glob("*") if path.is_dir())
    splits: Sequence[Split] = get_args(Split)
    return [(task, split) for task in tasks for split in splits if present(items_file(run, task, split))]


def scored_splits(run: Run) -> Iterator[ScoredSplit]:
    return (scored_split(run, task, split) for task, split in splits_of(run))


def scored_split(run: Run, task: str, split: Split) -> ScoredSplit:
    """Read once all answers to the items that the recipe asks for, and the judge's grades of them."""
    items = {item.item_id for item in items_of(run, task, split)}
    grades = _grades(run, task, split)
    metrics = [
        metric
        for metric in task_named(task, run.recipe.data).metrics
        if metric.rubric is None or metric.name in grades
    ]
    answers = Rows(FRAMES["answers"])
    values = Rows(FRAMES["item_scores"])
    checkpoints: dict[str, _Checkpoint] = {}
    for row in iter_shards(Answers(task, split, ()).folder(run), Answer):
        if row.item_id not in items:
            continue
        found = checkpoints.get(row.checkpoint)
        if found is None:
            found = checkpoints[row.checkpoint] = _Checkpoint(row.checkpoint, metrics)
        name = (task, split, row.checkpoint, found.iteration, found.model)
        answers.add(
            *name,
            row.item_id,
            row.answered,
            row.prompt_tokens,
            row.new_tokens,
            row.finish_reason,
            row.seconds,
        )
        found.answers += 1
        found.unanswered += not row.answered
        for metric in metrics:
            value, waits = _value(row, metric, grades)
            found.waiting[metric.name] += waits
            if value is not None:
                found.values[metric.name].append(value)
                values.add(*name, metric.name, row.item_id, value)
    return ScoredSplit(
        answers.columns, values.columns, _means(run, task, split, len(items), metrics, checkpoints.values())
    )


class _Checkpoint:
    """What is known of one checkpoint. values: by metric. waiting: by metric, answers that the judge has still to grade."""

    def __init__(self, name: str, metrics: Sequence[Metric]) -> None:
        self.name = name
        self.iteration, self.model = parse_checkpoint(name)
        self.answers = self.unanswered = 0
        self.values: dict[str, list[float]] = {metric.name: [] for metric in metrics}
        self.waiting: dict[str, int] = {metric.name: 0 for metric in metrics}


def _grades(run: Run, task: str, split: Split) -> dict[str, dict[str, float | None]]:
    """The judge's grades by metric and key; none where the recipe names no judge."""
    judged = any(metric.rubric is not None for metric in task_named(task, run.recipe.data).metrics)
    found: dict[str, dict[str, float | None]] = {}
    if judged and run.recipe.evaluation.judge is not None:
        for row in iter_shards(Grades(task, split, ()).folder(run), Grade):
            found.setdefault(row.metric, {})[row.key] = row.score
    return found


def _value(
    row: Answer, metric: Metric, grades: Mapping[str, Mapping[str, float | None]]
) -> tuple[float | None, bool]:
    """The score of an answer by `metric`, None if it has none, and whether the judge has still to give it."""
    if metric.rubric is None or not has_answer(row):
        return row.grades.get(metric.name), False
    key = grade_key(row.task, row.checkpoint, row.item_id, metric.name)
    given = grades[metric.name]
    return given.get(key), key not in given


def _means(
    run: Run,
    task: str,
    split: Split,
    items: int,
    metrics: Sequence[Metric],
    checkpoints: Iterable[_Checkpoint],
) -> Columns:
    rows = Rows(FRAMES["scores"])
    place = {model: number for number, model in enumerate(run.models)}
    first = task_named(task, run.recipe.data).metrics[0].name
    for found in sorted(checkpoints, key=lambda each: (each.iteration, place.get(each.model, len(place)))):
        for metric in metrics:
            values, waiting = found.values[metric.name], found.waiting[metric.name]
            rows.add(
                task,
                split,
                found.name,
                found.iteration,
                found.model,
                metric.name,
                metric.top,
                metric.name == first,
                items,
                fmean(values) if values else None,
                len(values),
                found.answers - len(values) - waiting,
                found.unanswered,
                items - found.answers + waiting,
            )
    return rows.columns


def splits(run: Run) -> Iterator[Columns]:
    """The splits as used: the instructions that the run trains on, and the items that it was scored on."""
    rows = Rows(FRAMES["splits"])
    trained_on = run.recipe.data.task or OWN
    if present(run.state.instructions):
        count = len(run.instructions)
        rows.add(trained_on, "train", count, count, True)
    for task, split in splits_of(run):
        frozen = sum(1 for _ in files.read_rows(items_file(run, task, split), Item))
        rows.add(task, split, len(items_of(run, task, split)), frozen, task == trained_on)
    yield rows.columns


def choices(run: Run) -> Iterator[Columns]:
    """The checkpoints that were chosen, from the summary; one row for each metric on the test split, or one without."""
    summary = read_summary(run.state).tasks
    for task in in_order(summary):
        scores = summary[task]
        rows = Rows(FRAMES["choices"])
        accesses = {(access.why, access.chosen_on): access.number for access in scores.accesses}
        for choice in scores.choices:
            name = (task, choice.what, choice.chosen_on, choice.checkpoint)
            found = (*name, *parse_checkpoint(choice.checkpoint), choice.validation)
            first = scores.metrics[0]
            if not choice.test:
                rows.add(*found, first.name, True, first.top, *[None] * 5)
            for metric in scores.metrics:
                if (test := choice.test.get(metric.name)) is not None:
                    ends = (test.mean, test.low, test.high, test.ungraded)
                    rows.add(
                        *found, metric.name, metric == first, metric.top, *ends, accesses.get(choice.key)
                    )
        yield rows.columns


def comparisons(run: Run) -> Iterator[Columns]:
    """The paired tests against other runs, from the summary."""
    summary = read_summary(run.state).tasks
    for task in in_order(summary):
        scores = summary[task]
        rows = Rows(FRAMES["comparisons"])
        for each in scores.against:
            rows.add(
                task,
                each.what,
                each.chosen_on,
                each.metric,
                each.checkpoint,
                each.other,
                each.other_checkpoint,
                each.difference,
                each.p,
                each.n,
            )
        yield rows.columns


def texts(run: Run, task: str, split: Split) -> Columns:
    """All answers to a split, with the question and what is right."""
    items = {item.item_id: item for item in items_of(run, task, split)}
    rows = Rows(("checkpoint", "item_id", "prompt", "right", "text", "thinking"))
    for row in iter_shards(Answers(task, split, ()).folder(run), Answer):
        if item := items.get(row.item_id):
            right = ", ".join(item.right) or item.answer or item.reference
            rows.add(row.checkpoint, row.item_id, question_text(item.messages), right, row.text, row.thinking)
    return rows.columns
