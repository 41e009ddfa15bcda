"""Gold answers: taken from the data when a run begins, kept in a file of their own in the state, and read from there ever after."""

from collections.abc import Callable, Mapping

from sparta.errors import SpartaError
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.run import Run
from sparta.tasks.base import Item, Task
from sparta.tasks.registry import task_named

SHOWN = 3


def gold_text(item: Item) -> str:
    """The gold answer as a model would write it: the whole good answer where there is one, else what is right; "" where there is neither."""
    if item.reference is not None and item.reference.strip():
        return item.reference.strip()
    answer = item.answer or ""
    return item.choices.get(answer, answer).strip()


def gather_gold(recipe: Recipe, usable: Callable[[Task, Item], bool], need: str) -> list[Item]:
    """The items that the instructions of `recipe` are made of, asked as in a combat, in the same order.

    usable: whether an item has what is needed. need: that in words, for the message. Raises SpartaError naming the first items that are not usable.
    """
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = [task.in_combat(item) for item in task.items("train", data)[: data.size]]
    lacking = [item.item_id for item in items if not usable(task, item)]
    if lacking:
        shown = ", ".join(lacking[:SHOWN]) + ", ..." * (len(lacking) > SHOWN)
        raise SpartaError(
            f"the method {recipe.method} needs {need}, which {len(lacking):,} of the {len(items):,} instructions of {data.task or data.train} lack ({shown}): "
            "take other data, or a method that needs none"
        )
    return items


def read_gold(run: Run) -> Mapping[str, Item]:
    """Gold items by prompt: data/gold.jsonl."""
    return {item.item_id: item for item in files.read_rows(run.state.gold, Item)}


def task_of(run: Run) -> Task:
    """The task that the instructions are of."""
    return task_named(run.recipe.data.task or "own", run.recipe.data)
