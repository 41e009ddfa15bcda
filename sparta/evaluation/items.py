"""The items of an evaluation, frozen in the state once, so that later changes of the data do not affect the run's scores."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.names import suggested
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run
from sparta.tasks.base import Item, Split, Task
from sparta.tasks.prepared import content
from sparta.tasks.registry import task_named
from sparta.tasks.user_data.sources import source_of


def items_file(run: Run, task: str, split: Split) -> Path:
    """evals/<task>/<split>/items.jsonl, one Item per line."""
    return run.state.evaluation(task, split).items


def freeze_items(run: Run, task: str, split: Split) -> None:
    """Write all items of `split` to the state, unless they are there already; from then on only that file is used. Choices are in label order.

    Raises SpartaError if the task lacks the split, if it is empty, for an id that is used twice or has a line break, and for an item that the
    other frozen split or the training prompts contain. For a user's own files, also if their items differ from the frozen ones.
    """
    path, data, known = items_file(run, task, split), run.recipe.data, task_named(task, run.recipe.data)
    if present(path):
        source = source_of(data, split) if task == "own" else None
        if source and source.is_there and _frozen(path) != known.items(split, data):
            raise SpartaError(
                f"data.{split} names {source.title}, which has other items than {path}, on which models were scored: restore the file, "
                "or begin a new run"
            )
        return
    items = known.items(split, data)
    if not items:
        raise SpartaError(f"the {split} split of {task} has no items: at least one is needed")
    seen: set[str] = set()
    for item in items:
        # Tasks receive their keys one per line.
        if item.item_id in seen or item.item_id.splitlines() != [item.item_id]:
            raise SpartaError(
                f"the {split} split of {task} has an item with the id {item.item_id!r}, which is used twice or is not a single line: "
                "give every item a unique id on one line"
            )
        seen.add(item.item_id)
    _refuse_known(run, known, split, items)
    files.write_rows(path, items)


def items_of(run: Run, task: str, split: Split) -> Sequence[Item]:
    """The items to score on, as models see them: the first ones of the frozen split, as many as the recipe says.

    Raises SpartaError if the split is not frozen yet.
    """
    evaluation = run.recipe.evaluation
    sizes = {"validation": evaluation.validation, "test": evaluation.test}
    path = items_file(run, task, split)
    if not present(path):
        raise SpartaError(f"{path} is missing: {suggested('evaluate', run.state.root)} writes it")
    known = task_named(task, run.recipe.data)
    return [known.posed(item) for item in _frozen(path)[: sizes.get(split)]]


def _frozen(path: Path) -> list[Item]:
    return list(files.read_rows(path, Item))


def _refuse_known(run: Run, task: Task, split: Split, items: Sequence[Item]) -> None:
    """Raises SpartaError for an item that is also in the other split or in the training prompts, for example after the data changed."""
    other = items_file(run, task.name, "validation" if split == "test" else "test")
    scored = {_question(task, item) for item in _frozen(other)} if present(other) else set()
    learned: set[str] = set()
    # If a prompt does not list the choices, instructions do not contain them and cannot be compared.
    if task.name == (run.recipe.data.task or "own") and not task.likelihood:
        learned = {_question(task, Item(row.prompt_id, row.messages)) for row in run.instructions}
    for item in items:
        # In earlier versions combats used the prompts of an evaluation.
        variants = (task.posed, task.in_combat)
        questions = {_question(task, Item(item.item_id, variant(item).messages)) for variant in variants}
        known = _question(task, item) in scored
        place = other if known else run.state.instructions if questions & learned else None
        if place is not None:
            raise SpartaError(
                f"the item {item.item_id} of the {split} split of {task.name} is also in {place}: restore the original data of the splits, "
                "or begin a new run"
            )


def _question(task: Task, item: Item) -> str:
    """The content of `item` without plain-text scaffolding, which earlier versions wrote into frozen items."""
    return content(msgspec.structs.replace(item, messages=task.plain(item)))
