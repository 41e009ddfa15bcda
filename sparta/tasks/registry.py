"""Tasks by name."""

import difflib

from sparta.errors import SpartaError
from sparta.tasks.base import Task
from sparta.tasks.toy import Toy

TASKS: dict[str, Task] = {"toy": Toy()}


def task_named(name: str) -> Task:
    """The task called `name`. Raises SpartaError with the nearest known name."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known tasks: {', '.join(TASKS)}"
    raise SpartaError(f"there is no task {name}; {hint} Instructions of your own go into data.train")
