"""Estimates of a run's work and time: counted from the recipe, timed with the rates that this run has measured so far.

Before the first iteration the recipe's assumed rates are used. Measured are the throughput of a task and the seconds of a load, for each phase,
so the estimate also holds for other numbers of tasks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from sparta.cluster.launcher import Launcher
from sparta.cluster.parallelism import TaskCount, task_count_for
from sparta.cluster.throughput import Measured, measured, rates_of
from sparta.methods.registry import phases_of
from sparta.phases.base import Expected, Phase
from sparta.store.run import Run
from sparta.store.stats import PhaseStats


def seconds_per_iteration(run: Run) -> float | None:
    """Median duration of the committed iterations, in seconds; None before there is one."""
    durations = [sum(phase.seconds for phase in phases.values()) for phases in measured(run)]
    return sorted(durations)[len(durations) // 2] if durations else None


@dataclass(frozen=True)
class Forecast:
    """The estimate for one phase of one iteration. seconds: from the first task's start to the last task's end; busy: summed over tasks."""

    phase: Phase
    width: TaskCount
    seconds: float
    busy: float


def forecasts(run: Run, launcher: Launcher, t: int) -> list[Forecast]:
    """Estimates for all phases of iteration t with the tasks of `launcher`, at measured rates, or assumed ones before the first iteration."""
    found = measured(run)
    return [
        _of_array(run, phase, t, launcher, found)
        if phase.is_array
        else Forecast(
            phase, TaskCount(1), *([_typical(found, phase.name, lambda stats: stats.seconds) or 0.0] * 2)
        )
        for phase in phases_of(run.recipe, t)
    ]


def _of_array(run: Run, phase: Phase, t: int, launcher: Launcher, found: Measured) -> Forecast:
    expected, cluster = phase.expected(run, t), run.recipe.cluster
    most, at_once = launcher.tasks(phase), launcher.at_once(phase)
    if phase.trains:
        seconds = _of_trainings(phase, expected, found)
        width = task_count_for(cluster, None, 0.0, len(seconds), most)
        rounds = -(-len(seconds) // min(width.tasks, at_once))
        return Forecast(phase, width, max(max(seconds), fmean(seconds) * rounds), sum(seconds))
    rates = rates_of(run, phase, found)
    cost = _typical(found, phase.name, lambda stats: stats.cost) or expected.cost
    width = task_count_for(cluster, rates, cost, expected.bundles, most)
    together = min(width.tasks, at_once)
    # A single process keeps its engine across phases, so a phase may load nothing.
    loads = _typical(found, phase.name, lambda stats: float(stats.loads)) if most == 1 else None
    starts = width.tasks if loads is None else loads
    return Forecast(
        phase,
        width,
        rates.seconds(cost) / together + rates.start_seconds * math.ceil(starts / together),
        rates.seconds(cost) + rates.start_seconds * starts,
    )


def _of_trainings(phase: Phase, expected: Expected, found: Measured) -> Sequence[float]:
    """Seconds of training for each model that `phase` trains."""
    each = _typical(found, phase.name, lambda stats: stats.busy / max(stats.items, 1))
    return expected.seconds if each is None else [each] * expected.bundles


def _typical(found: Measured, name: str, of: Callable[[PhaseStats], float]) -> float | None:
    """Median over the measured iterations; None where the phase was measured in none."""
    values = [of(phases[name]) for phases in found if name in phases]
    return median(values) if values else None
