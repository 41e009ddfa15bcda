"""Which of a run's choices count for a task, where checkpoints were chosen on the validation split of several tasks (evaluate.py --select-on).

Those chosen on the task itself. Where there are none, those chosen on the task that the run was aligned on; without these, on the first task in the paper's order.
"""

import pandas as pd

from analysis.evaluation_rows import in_order
from analysis.frames import Frames


def counted(found: Frames) -> pd.DataFrame:
    """The rows of `found.choices` that count: for each run and task those chosen on one task."""
    choices = found.choices
    if choices.empty:
        return choices
    aligned_on = {source.label: source.run.recipe.data.task for source in found.sources}
    kept = []
    for (run, task), here in choices.groupby(["run", "task"], observed=True, sort=False):
        names = here.chosen_on.astype(str)
        known = set(names)
        on = next((name for name in (str(task), aligned_on[str(run)]) if name in known), in_order(known)[0])
        kept.append(here[names == on])
    return pd.concat(kept).sort_index()


def notes(choices: pd.DataFrame) -> list[str]:
    """For which tasks the checkpoints of `counted` choices were chosen on another task, in sentences."""
    tasks, names = choices.task.astype(str), choices.chosen_on.astype(str)
    pairs = dict.fromkeys(zip(tasks[tasks != names], names[tasks != names], strict=True))
    return [f"Checkpoints scored on {task} were chosen on validation of {on}." for task, on in pairs]
