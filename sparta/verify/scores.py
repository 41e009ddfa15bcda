"""Evaluations: the grades of answers and the scores of the summary, computed again from the answers on disk."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from sparta.evaluation.answer import Answers, checkpoint_name
from sparta.evaluation.items import items_file, items_of
from sparta.evaluation.scores import scores
from sparta.evaluation.selection import best, mean_of
from sparta.evaluation.summary import TaskScores, format_of_scores, read_summary, summary_file
from sparta.store.disk import present
from sparta.store.records import Answer, Grade, Row, SampledAnswer, SetGrade, answer_key, grade_key
from sparta.store.run import Run
from sparta.store.shard_lines import lines_to_mend
from sparta.store.shards import iter_shards
from sparta.tasks.base import Item, Split, Task
from sparta.tasks.registry import task_named
from sparta.verify.finding import Finding, counted, errors_into

CHECK = "evaluation"


def evaluated(run: Run) -> list[tuple[str, Split]]:
    """The tasks and splits that checkpoints of the run were scored on."""
    if not run.state.evals.is_dir():
        return []
    splits: tuple[Split, ...] = get_args(Split)
    return [
        (folder.name, split)
        for folder in sorted(run.state.evals.iterdir())
        for split in splits
        if folder.is_dir() and present(items_file(run, folder.name, split))
    ]


def row_folders(run: Run) -> Iterator[tuple[Path, type[Row]]]:
    """The folders of shards of all that was scored, with their row types: answers in the recipe's prompt format; a judge's grades, whatever judge gave
    them; sampled answers, and the grades of their sets.
    """
    for task, split in evaluated(run):
        yield Answers(task, split, ()).folder(run), Answer
        for of in (Grade, SampledAnswer, SetGrade):
            for folder in _folders_of(run, task, split, of):
                yield folder, of


_NAMES: Mapping[type[Row], str] = {Grade: "grades-*", SampledAnswer: "samples-*", SetGrade: "set-grades-*"}


def _folders_of(run: Run, task: str, split: Split, of: type[Row]) -> list[Path]:
    return sorted(run.state.evaluation(task, split).root.glob(_NAMES[of]))


def findings_in_answers(run: Run, task: str, split: Split) -> Iterator[Finding]:
    """Answers on `split`, and a judge's grades of them, that are malformed, contradict each other, or that nothing asked for; answers that have
    other grades than their text gets.
    """
    found: list[Finding] = []
    with errors_into(found, CHECK):
        known = task_named(task, run.recipe.data)
        folder = Answers(task, split, ()).folder(run)
        items = {item.item_id: item for item in items_of(run, task, split)}
        names = [checkpoint_name(run, t, model) for t in run.state.committed() for model in run.models]
        asked = {answer_key(task, name, item) for name in names for item in items}
        whole, problems = _findings_in_lines(folder, Answer, asked.__contains__)
        yield from problems
        if whole:
            wrong = [row.key for row in iter_shards(folder, Answer) if _is_graded_wrong(known, items, row)]
            if wrong:
                yield Finding(
                    CHECK,
                    f"{folder} has {counted(len(wrong), 'answer')} with other grades than the text gets, {wrong[0]} the first: the lines were changed, "
                    "or graded by another version; delete them and score again",
                )
        rubrics = [metric.name for metric in known.metrics if metric.rubric]
        gradable = {grade_key(task, name, item, each) for name in names for item in items for each in rubrics}
        for grades in _folders_of(run, task, split, Grade):
            yield from _findings_in_lines(grades, Grade, gradable.__contains__)[1]
        yield from _findings_in_samples(run, task, split, names, items)
    yield from found


def _findings_in_samples(
    run: Run, task: str, split: Split, names: Sequence[str], items: Mapping[str, Item]
) -> Iterator[Finding]:
    """The same of sampled answers and the grades of their sets. names: all checkpoints."""
    entries = {*names, *(run.iteration(t).root.name for t in run.state.committed())}

    def is_asked(key: str) -> bool:
        _, entry, _, item_id = key.split("/", maxsplit=3)
        return key.startswith(f"{task}/") and entry in entries and item_id in items

    for of in (SampledAnswer, SetGrade):
        for folder in _folders_of(run, task, split, of):
            yield from _findings_in_lines(folder, of, is_asked, again="sample")[1]


def _findings_in_lines(
    folder: Path, of: type[Row], is_asked: Callable[[str], bool], again: str = "score"
) -> tuple[bool, list[Finding]]:
    """Whether the rows of `folder` can be read, and what is to be said about its lines. is_asked: whether a scoring can ask for this key. again: the
    command that makes rows anew.
    """
    lines = lines_to_mend(folder, of)
    what = re.sub(r"(?<!^)(?=[A-Z])", " ", of.__name__).lower()
    found = [
        Finding(CHECK, f"{line} is not a valid {what} ({line.error}): delete the line, and {again} again")
        for line in lines.broken
    ]
    found += [
        Finding(
            CHECK,
            f"{' and '.join(map(str, places))} are different {what}s for {key}: delete all of them, and {again} again",
        )
        for key, places in lines.differing.items()
    ]
    if strange := sorted(key for key in lines.keys if not is_asked(key)):
        found.append(
            Finding(
                CHECK,
                f"{folder} has {counted(len(strange), what)} that nothing asked for, {strange[0]} the first; no score is made of them",
                wrong=False,
            )
        )
    return not lines.broken and not lines.differing, found


def _is_graded_wrong(task: Task, items: Mapping[str, Item], row: Answer) -> bool:
    item = items.get(row.item_id)
    if item is None or not row.answered or row.finish_reason == "prompt_too_long":
        return False
    if task.likelihood:
        logs = dict(zip(item.choices, row.choice_logs, strict=True))
        return task.score_likelihoods(item, logs) != row.grades
    return task.grade(item, row.text) != row.grades


def findings_in_summary(run: Run) -> Iterator[Finding]:
    """Scores and choices in summary.json that do not follow from answers and grades."""
    found: list[Finding] = []
    with errors_into(found, CHECK):
        for task, recorded in read_summary(run.state).tasks.items():
            with errors_into(found, CHECK):
                yield from _findings_in_task(run, task, recorded)
    yield from found


def _findings_in_task(run: Run, task: str, recorded: TaskScores) -> Iterator[Finding]:
    judged = any(metric.rubric for metric in task_named(task, run.recipe.data).metrics)
    if recorded.prompt_format not in {format_of_scores(run, task, judged=each) for each in {judged, False}}:
        yield Finding(
            CHECK,
            f"the scores of {task} are of another prompt format ({recorded.prompt_format}) than the recipe's, and were not computed again",
            wrong=False,
        )
        return
    metric, path = recorded.metrics[0].name, summary_file(run.state)
    if recorded.validation:
        made = scores(run, "validation", task, metric, tuple(recorded.validation))
        means = {name: mean_of(made[name]) for name in recorded.validation}
        for name, value in recorded.validation.items():
            if means[name].value != value or means[name].ungraded != recorded.ungraded.get(name):
                yield Finding(
                    CHECK,
                    f"{path} has {value} for {name} on {task} validation, and its answers give {means[name].value}: score again",
                )
        for choice in recorded.choices:
            if choice.chosen_on == task:
                # In the order in which a tie is decided.
                names = [checkpoint_name(run, t, model) for t in choice.iterations for model in run.models]
                among = {name: means[name] for name in names if name in means}
                if best(task, choice.what, among) != (choice.checkpoint, choice.validation):
                    yield Finding(
                        CHECK,
                        f"{path} names {choice.checkpoint} as the {choice.what} on {task}, and it is not: score again",
                    )
    for choice in recorded.choices:
        for name, interval in choice.test.items():
            tested = mean_of(scores(run, "test", task, name, (choice.checkpoint,))[choice.checkpoint])
            if (tested.value, tested.ungraded) != (interval.mean, interval.ungraded):
                yield Finding(
                    CHECK,
                    f"{path} has {interval.mean} for {choice.checkpoint} on {task} test by {name}, and its answers give {tested.value}: score again",
                )
