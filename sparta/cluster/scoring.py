"""Scoring a run's checkpoints: the best on validation, then its test score, beside the best initial model.

The test split is read for the chosen checkpoints alone, after they were chosen.
"""

import signal
from pathlib import Path

import msgspec
from rich import box
from rich.table import Table

from sparta.cluster.console import Screen
from sparta.cluster.driver import Driver
from sparta.cluster.launchers import launcher_for, settings_for
from sparta.cluster.lifecycle import check_state
from sparta.engines.factory import close_engine
from sparta.errors import SpartaError
from sparta.phases.evaluate import Evaluate, mean
from sparta.recipe import ClusterKind
from sparta.recipe_files import adjust
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run


class Choice(msgspec.Struct, frozen=True):
    """The best model of one pool on validation. Scores are mean grades in [0, 1]."""

    what: str
    checkpoint: str
    validation: float
    test: float


class Summary(msgspec.Struct, frozen=True):
    """evals/<task>/summary.json. validation: mean grade of every checkpoint that was scored."""

    task: str
    items: dict[str, int]
    validation: dict[str, float]
    choices: list[Choice]


def score(
    state: StateDir,
    every: bool,
    screen: Screen,
    cluster: ClusterKind | None = None,
    profile: str | None = None,
) -> Summary:
    """Score M^0 and the last pool of the run in `state` (`every`: all pools), write the summary and return it.

    cluster, profile: where, this once; None: where the recipe says. Interrupted, it goes on by the same call.
    """
    # Asked to go, by a person or by SLURM: like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Run.open(state)  # refused before anything is written where there is no run
    with RunLock(state, screen.say) as lock:
        run = Run.open(state)
        check_state(run)
        task = run.recipe.evaluation.task or run.recipe.data.task
        if task is None:
            raise SpartaError(f"{run.state.recipe_yaml} names no task to score on: set evaluation.task")
        # For this process alone: where a run is launched is not decided here, and tasks find nothing in it that depends on where they run.
        run.recipe = adjust(run.recipe, settings_for(cluster, profile))
        committed = state.committed()
        iterations = tuple(committed) if every else tuple(sorted({committed[0], committed[-1]}))
        launcher = launcher_for(run)
        driver = Driver(run, launcher, screen, lock.check)
        try:
            validation = Evaluate(task, "validation", iterations)
            # Where all is there, it is read on any machine.
            if validation.missing(run, 0):
                launcher.check([validation])
            driver.complete(validation, 0)
            means = {checkpoint: mean(grades) for checkpoint, grades in validation.scores(run).items()}
            chosen = {
                "best initial model": _best(means, iterations[:1], run),
                "best of the last pool": _best(means, iterations[-1:], run),
            }
            if every:
                chosen["best of all checkpoints"] = _best(means, iterations, run)
            test = Evaluate(task, "test", iterations, only=tuple(sorted(set(chosen.values()))))
            driver.complete(test, 0)
            tested = {checkpoint: mean(grades) for checkpoint, grades in test.scores(run).items()}
        finally:
            close_engine()
        summary = Summary(
            task=task,
            items={"validation": len(validation.items(run)), "test": len(test.items(run))},
            validation=means,
            choices=[Choice(what, name, means[name], tested[name]) for what, name in chosen.items()],
        )
        files.write_json(summary_file(state, task), summary)
        return summary


def summary_file(state: StateDir, task: str) -> Path:
    return state.evals / task / "summary.json"


def summary_table(summary: Summary) -> Table:
    """The chosen checkpoints and their scores."""
    table = Table(
        title=f"{summary.task}: {summary.items['validation']} validation and {summary.items['test']} test items",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("chosen on validation", "checkpoint"):
        table.add_column(heading)
    for heading in ("validation", "test"):
        table.add_column(heading, justify="right")
    for choice in summary.choices:
        table.add_row(choice.what, choice.checkpoint, f"{choice.validation:.1%}", f"{choice.test:.1%}")
    return table


def _best(means: dict[str, float], iterations: tuple[int, ...], run: Run) -> str:
    """The checkpoint of `iterations` with the highest mean; of equals the first."""
    names = {run.iteration(t).root.name for t in iterations}
    return max((name for name in means if name.partition("-")[0] in names), key=lambda name: means[name])
