"""Tasks by name, and the subsets that experts learn from."""

import difflib

from sparta.errors import SpartaError
from sparta.recipe import Data
from sparta.tasks import alpaca, com2, gsm8k, kcross, mathematics, medqa, normad, truthfulqa
from sparta.tasks.base import Task
from sparta.tasks.subsets import DOLLY, SUBSETS, Subset
from sparta.tasks.toy import Toy

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        medqa.MEDQA,
        normad.COUNTRY,
        normad.VALUE,
        normad.ROT,
        kcross.KCROSS,
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

LESSONS: dict[str, Subset] = {**SUBSETS, DOLLY.name: DOLLY}
"""What experts learn from: the paper's ten, and one more."""


def task_named(name: str, data: Data | None = None) -> Task:
    """The task called `name`; `own`: that of the files which `data` names. Raises SpartaError with the nearest known name."""
    if name == "own":
        from sparta.tasks.own import Own

        if data is None or data.train is None:
            raise SpartaError(
                "the task own is made of files of your own: name them in data.train, data.validation and data.test"
            )
        return Own(data)
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, (*TASKS, "own"), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known tasks: {', '.join(TASKS)}."
    raise SpartaError(f"there is no task {name}; {hint} Instructions of your own go into data.train")
