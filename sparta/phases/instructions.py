"""X, the instructions to align on: the training split of a task, or a person's own file."""

from sparta.errors import SpartaError
from sparta.recipe import Recipe
from sparta.store.records import Instruction
from sparta.tasks.registry import task_named


def gather(recipe: Recipe) -> list[Instruction]:
    """The instructions that `recipe` names. Raises SpartaError naming file and line, or where there are none."""
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = task.items("train", data)[: data.size]
    if not items:
        raise SpartaError(f"{data.task or data.train} has no instructions: at least one is needed")
    return [Instruction(item.item_id, task.posed(item).messages) for item in items]
