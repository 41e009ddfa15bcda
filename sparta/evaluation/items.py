"""The items of an evaluation as used: written down once, so that what was scored is known whatever becomes of the data they came from."""

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


def items_file(run: Run, task: str, split: Split) -> Path:
    """evals/<task>/<split>/items.jsonl, one Item a line."""
    return run.state.evaluation(task, split).items


def freeze_items(run: Run, task: str, split: Split) -> None:
    """Write all items of `split` down, unless that was done: from then on the file is what counts.

    Choices are in the order of their labels there. Raises SpartaError where the task cannot give the split, where it is empty, for an id that is
    used twice or has a line break, and for an item that the other split written down has, or that the run learned from. Of a person's own files
    also where one is there and has no longer the items that were written down.
    """
    path, data, known = items_file(run, task, split), run.recipe.data, task_named(task, run.recipe.data)
    if present(path):
        given = getattr(data, split)
        if task == "own" and given and Path(given).is_file() and _written(path) != known.items(split, data):
            raise SpartaError(
                f"data.{split} names {given}, which has other items than {path}, those that models were scored on: name the file as it was, "
                "or begin a new run"
            )
        return
    items = known.items(split, data)
    if not items:
        raise SpartaError(f"the {split} split of {task} has no items: at least one is needed")
    seen: set[str] = set()
    for item in items:
        # Keys are told to tasks one a line.
        if item.item_id in seen or item.item_id.splitlines() != [item.item_id]:
            raise SpartaError(
                f"the {split} split of {task} has an item with the id {item.item_id!r}, which is used twice or is no single line: "
                "give every item an id of its own"
            )
        seen.add(item.item_id)
    _refuse_known(run, known, split, items)
    files.write_rows(path, items)


def items_of(run: Run, task: str, split: Split) -> Sequence[Item]:
    """The items to score on, as models are asked them: of those written down, the first as many as the recipe says.

    Raises SpartaError before they are written down.
    """
    evaluation = run.recipe.evaluation
    sizes = {"validation": evaluation.validation, "test": evaluation.test}
    path = items_file(run, task, split)
    if not present(path):
        raise SpartaError(f"{path} is missing: {suggested('evaluate', run.state.root)} writes it")
    known = task_named(task, run.recipe.data)
    return [known.posed(item) for item in _written(path)[: sizes.get(split)]]


def _written(path: Path) -> list[Item]:
    return list(files.read_rows(path, Item))


def _refuse_known(run: Run, task: Task, split: Split, items: Sequence[Item]) -> None:
    """Raises SpartaError for an item that choices were made on or that the run learned from: the data may have changed since."""
    other = items_file(run, task.name, "validation" if split == "test" else "test")
    scored = {_asked(task, item) for item in _written(other)} if present(other) else set()
    learned: set[str] = set()
    # Of choices that a prompt does not list, instructions know nothing.
    if task.name == (run.recipe.data.task or "own") and not task.likelihood:
        learned = {_asked(task, Item(row.prompt_id, row.messages)) for row in run.instructions}
    for item in items:
        # Earlier versions asked in a combat what an evaluation asks.
        forms = (task.posed, task.in_combat)
        asked = {_asked(task, Item(item.item_id, form(item).messages)) for form in forms}
        known = _asked(task, item) in scored
        place = other if known else run.state.instructions if asked & learned else None
        if place is not None:
            raise SpartaError(
                f"the item {item.item_id} of the {split} split of {task.name} is also in {place}: give the splits the data that they had, "
                "or begin a new run"
            )


def _asked(task: Task, item: Item) -> str:
    """What `item` asks, the same whether or not it was written down with the scaffolding of bare text, as earlier versions did."""
    return content(msgspec.structs.replace(item, messages=task.plain(item)))
