"""Tasks by name."""

from sparta.errors import SpartaError
from sparta.names import nearest
from sparta.recipes.data import Data
from sparta.tasks.base import Task
from sparta.tasks.benchmarks import (
    alpaca,
    com2,
    gsm8k,
    knowledge_crosswords,
    mathematics,
    medqa,
    normad,
    truthfulqa,
)
from sparta.tasks.benchmarks.toy import Toy

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        medqa.MEDQA,
        normad.COUNTRY,
        normad.VALUE,
        normad.ROT,
        knowledge_crosswords.KCROSS,
        gsm8k.GSM8K,
        com2.COM2,
        mathematics.EASY,
        mathematics.MEDIUM,
        mathematics.HARD,
        alpaca.ALPACA,
        truthfulqa.TRUTHFULQA,
        Toy(),
    )
}
"""The data sets, in the paper's order, and the toy task."""


def task_named(name: str, data: Data | None = None) -> Task:
    """The task called `name`; `own`: the task of the files in `data`. Raises SpartaError with the most similar known name."""
    if name == "own":
        from sparta.tasks.user_data.task import UserTask

        if data is None or data.train is None:
            raise SpartaError(
                "the task own is made of your own files: name them in data.train, data.validation and data.test"
            )
        return UserTask(data)
    if name in TASKS:
        return TASKS[name]
    near = nearest(name, (*TASKS, "own"))
    meant = f"did you mean {near}?" if near else f"known tasks: {', '.join(TASKS)}."
    raise SpartaError(f"there is no task {name}; {meant} Your own instructions go into data.train")
