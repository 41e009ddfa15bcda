"""Gold answers: copied from the data to a file of the state when a run begins, and always read from that file."""

from collections.abc import Callable, Mapping

from sparta.errors import SpartaError
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.run import Run
from sparta.tasks.base import Item, Task
from sparta.tasks.registry import task_named

SHOWN = 3


def gold_text(item: Item) -> str:
    """The gold answer as a model would write it: the reference text if there is one, else the correct answer; "" if there is neither."""
    if item.reference is not None and item.reference.strip():
        return item.reference.strip()
    answer = item.answer or ""
    return item.choices.get(answer, answer).strip()


def gather_gold(recipe: Recipe, usable: Callable[[Task, Item], bool], need: str) -> list[Item]:
    """The items of the instructions of `recipe`, in the same order, with the prompts of combats.

    usable: whether an item has the needed gold answer. need: its description for the message. Raises SpartaError naming the first unusable items.
    """
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = [task.in_combat(item) for item in task.items("train", data)[: data.size]]
    lacking = [item.item_id for item in items if not usable(task, item)]
    if lacking:
        shown = ", ".join(lacking[:SHOWN]) + ", ..." * (len(lacking) > SHOWN)
        raise SpartaError(
            f"the method {recipe.method} needs {need}, which {len(lacking):,} of the {len(items):,} instructions of {data.task or data.train} lack ({shown}): "
            "choose other data, or a method that needs none"
        )
    return items


def read_gold(run: Run) -> Mapping[str, Item]:
    """Gold items by prompt: data/gold.jsonl."""
    return {item.item_id: item for item in files.read_rows(run.state.gold, Item)}


def task_of(run: Run) -> Task:
    """The task of the instructions."""
    return task_named(run.recipe.data.task or "own", run.recipe.data)
