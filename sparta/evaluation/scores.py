"""The results of an evaluation: each checkpoint's values of one metric, by item, from the answers and grades on disk."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparta.errors import SpartaError
from sparta.evaluation.answer import Answers, checkpoints
from sparta.evaluation.grade import Grades, has_answer
from sparta.evaluation.items import items_of
from sparta.store.records import Answer, Grade, Row, answer_key, grade_key
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks.base import Split
from sparta.tasks.registry import task_named

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class CheckpointScores:
    """One checkpoint by one metric. values: by item, in the metric's unit. ungraded: items without a value, which are left out of means.
    unanswered: ungraded items where the model's thinking never ended.
    """

    values: dict[str, float]
    ungraded: int
    unanswered: int = 0


def scores(
    run: Run, split: Split, task: str, metric: str, entries: Iterable[str]
) -> dict[str, CheckpointScores]:
    """The values of `metric` for the checkpoints of `entries`, by checkpoint name.

    Raises SpartaError if an answer or a judge's grade is missing, or if the task does not have this metric.
    """
    known = {each.name: each for each in task_named(task, run.recipe.data).metrics}
    if metric not in known:
        raise SpartaError(f"{task} has no metric {metric}: use one of {', '.join(known)}")
    entries = tuple(entries)
    names = checkpoints(run, entries)
    folder = Answers(task, split, entries).folder(run)
    answers = read_shards(folder, Answer)
    graded = Grades(task, split, entries).folder(run) if known[metric].rubric is not None else None
    grades = read_shards(graded, Grade) if graded else {}
    items = items_of(run, task, split)
    found = {}
    for name in names:
        values, unanswered = {}, 0
        for item in items:
            answer = _row(answers, answer_key(task, name, item.item_id), folder)
            unanswered += not answer.answered
            value = answer.grades.get(metric)
            if graded and has_answer(answer):
                value = _row(grades, grade_key(task, name, item.item_id, metric), graded).score
            if value is not None:
                values[item.item_id] = value
        found[name] = CheckpointScores(values, len(items) - len(values), unanswered)
    return found


def _row(rows: Mapping[str, R], key: str, folder: Path) -> R:
    if key not in rows:
        raise SpartaError(f"{folder} has no row {key}: run the evaluation again to complete it")
    return rows[key]
