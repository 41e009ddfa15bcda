"""The run whose answers an evaluation adopts: checked, and set aside with the reason where its answers might be others."""

from collections.abc import Callable
from pathlib import Path

from sparta.commands.begin import check_state
from sparta.commands.cancel import attempts_below
from sparta.evaluation.adopted import depends_on_machine
from sparta.pool.members import settled_for
from sparta.store.layout import StateDir
from sparta.store.run import Run


def source_of_answers(run: Run, folder: Path, say: Callable[[str], None]) -> Run | None:
    """The run in `folder`, to adopt answers from; None, and why, where kind or dtype of an engine are left to machines that were not the same.

    Raises SpartaError where there is no run, or its state was changed.
    """
    other = Run.open(StateDir(folder))
    check_state(other)
    if not depends_on_machine(run):
        return other
    mine, theirs = _devices(run), _devices(other)
    if mine == theirs and len(mine) == 1:
        return other
    say(
        f"nothing is adopted from {folder}: engine.kind or engine.dtype is auto, and the tasks of both runs were not all on the same kind of device "
        f"(here {_in_words(mine)}, there {_in_words(theirs)}): set engine.kind and engine.dtype in both recipes to share answers"
    )
    return None


def _devices(run: Run) -> set[str]:
    """The kinds of devices of the tasks that ran the pool's engine, as the recipe or their records say; empty if none ran yet."""
    settings = settled_for(run, run.recipe.engine)
    if settings.device != "auto":
        return {settings.device}
    return {
        "cuda" if record.gpus else "cpu"
        for attempts in attempts_below(run, run.state.jobs)
        if attempts.phase.runs_an_engine and attempts.phase.engine_key == "engine"
        for attempt in attempts.all()
        for record in attempts.records(attempt)
    }


def _in_words(devices: set[str]) -> str:
    return " and ".join(sorted(devices)) or "none so far"
