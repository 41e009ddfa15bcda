"""Answers and grades that another run has made already: adopted instead of made again, where nothing differs that they depend on.

They depend on the adapter's content and its base, the task, the split, how items are prompted and graded, the items themselves, and how the
engine and the chat template are set. What the machine decides is checked by the caller, see `depends_on_machine`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from sparta.engines.base import ModelRef
from sparta.evaluation.answer import Answers, EntriesByTask, TaskRows, checkpoints
from sparta.evaluation.grade import Grades
from sparta.evaluation.items import items_file, items_of
from sparta.pool.members import settled_for
from sparta.recipes.identity import identity_of
from sparta.store import files
from sparta.store.disk import present
from sparta.store.records import Answer, Grade, Row, answer_key, grade_key
from sparta.store.run import Run
from sparta.store.shards import adopted_file, read_shards
from sparta.tasks.base import Split

R = TypeVar("R", bound=Row)
Weights = tuple[str, str]
"""What makes two checkpoints of different runs the same model: the base's folder and the version of the adapter."""


def adopt_answers(run: Run, other: Run, split: Split, entries: EntriesByTask) -> int:
    """Give `run` the answers of `other` that it lacks for `entries`. Returns how many."""
    if not _alike(run, other):
        return 0
    return sum(
        _adopt_answers(run, other, Answers(task, split, tuple(named))) for task, named in entries.items()
    )


def adopt_grades(run: Run, other: Run, split: Split, entries: EntriesByTask) -> int:
    """Give `run` the judge's grades of `other` that it lacks, for answers that both have. Returns how many."""
    if not _alike(run, other):
        return 0
    return sum(
        _adopt_grades(run, other, Grades(task, split, tuple(named))) for task, named in entries.items()
    )


def depends_on_machine(run: Run) -> bool:
    """Whether the machine decides the kind of the run's engine or its dtype, so that equal settings may mean different answers."""
    settings = settled_for(run, run.recipe.engine)
    return settings.kind not in ("api", "scripted") and "auto" in (settings.kind, settings.dtype)


def _alike(run: Run, other: Run) -> bool:
    """Whether the two runs set engines and chat templates alike."""
    mine, theirs = (identity_of(settled_for(each, each.recipe.engine)) for each in (run, other))
    return mine == theirs and run.chat == other.chat


def _adopt_answers(run: Run, other: Run, part: Answers) -> int:
    def candidates(rows: Mapping[str, Answer]) -> Iterator[Answer]:
        for name, twin, item in _twins(run, other, part):
            row = rows.get(answer_key(part.task, twin, item))
            if row is not None:
                yield replace(row, checkpoint=name)

    return _adopt(run, other, part, Answer, candidates)


def _adopt_grades(run: Run, other: Run, part: Grades) -> int:
    mine, theirs = (read_shards(part.answers.folder(each), Answer) for each in (run, other))

    def candidates(rows: Mapping[str, Grade]) -> Iterator[Grade]:
        for name, twin, item in _twins(run, other, part):
            ours = mine.get(answer_key(part.task, name, item))
            same = theirs.get(answer_key(part.task, twin, item))
            if ours is None or same is None or ours.text != same.text:
                continue
            for metric in part.metrics(run):
                row = rows.get(grade_key(part.task, twin, item, metric))
                if row is not None:
                    yield replace(row, checkpoint=name)

    return _adopt(run, other, part, Grade, candidates)


def _adopt(
    run: Run,
    other: Run,
    part: TaskRows,
    of: type[R],
    candidates: Callable[[Mapping[str, R]], Iterator[R]],
) -> int:
    """Add those of `candidates`, made of the other run's rows, that are missing. Returns their number; 0 if prompts or grading differ."""
    source, target = part.folder(other, 0), part.folder(run, 0)
    if source.name != target.name or not _same_items(run, other, part.task, part.split):
        return 0
    missing = {item.key for item in part.missing(run, 0)}
    found = dict[str, R]()
    for row in candidates(read_shards(source, of)):
        if row.key in missing:
            found.setdefault(row.key, row)
    return _add(target, list(found.values()), of)


def _twins(run: Run, other: Run, part: TaskRows) -> Iterator[tuple[str, str, str]]:
    """Each checkpoint of `part` with one of the other run that has the same weights, and an item that both runs pose alike."""
    known, items = _known(other), _same_items(run, other, part.task, part.split)
    for name, model in checkpoints(run, part.entries).items():
        for twin in known.get(_weights(model), ()):
            for item in items:
                yield name, twin, item


def _weights(model: ModelRef) -> Weights:
    return model.base, model.version


def _known(run: Run) -> Mapping[Weights, Sequence[str]]:
    """The checkpoints of `run` by their weights."""
    found: dict[Weights, list[str]] = {}
    entries = [run.iteration(t).root.name for t in run.state.committed()]
    for name, model in checkpoints(run, entries).items():
        found.setdefault(_weights(model), []).append(name)
    return found


def _same_items(run: Run, other: Run, task: str, split: Split) -> list[str]:
    """The ids of items that the two runs pose alike."""
    if not all(present(items_file(each, task, split)) for each in (run, other)):
        return []
    theirs = {item.item_id: item for item in items_of(other, task, split)}
    return [item.item_id for item in items_of(run, task, split) if theirs.get(item.item_id) == item]


def _add(folder: Path, rows: Sequence[Row], of: type[Row]) -> int:
    """Add `rows` to those that `folder` has adopted before. Returns their number."""
    if rows:
        path = adopted_file(folder)
        before = list(files.read_rows(path, of)) if present(path) else []
        files.write_rows(path, [*before, *rows])
    return len(rows)
