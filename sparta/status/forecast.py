"""Estimates of a run's work and time: counted from the recipe, timed with the rates that this run has measured so far.

Before the first iteration the recipe's assumed rates are used. Measured are the throughput of a task and the seconds of a load, for each phase,
so the estimate also holds for other numbers of tasks.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from sparta.cluster.account import in_order
from sparta.cluster.gpus import gpus_of_task
from sparta.cluster.launcher import Launcher
from sparta.cluster.parallelism import TaskCount, task_count_for
from sparta.cluster.throughput import Measured, measured, rates_of
from sparta.engines.stopwatch import SET_UP, START, TRAIN
from sparta.methods.registry import phases_of
from sparta.phases.base import Expected, Phase
from sparta.store.run import Run
from sparta.store.stats import PhaseStats, TimeAccount


def seconds_per_iteration(run: Run) -> float | None:
    """Median duration of the committed iterations, in seconds; None before there is one."""
    durations = [sum(phase.seconds for phase in phases.values()) for phases in measured(run)]
    return sorted(durations)[len(durations) // 2] if durations else None


@dataclass(frozen=True)
class Forecast:
    """The estimate for one phase of one iteration. seconds: from the first task's start to the last task's end. parts: seconds of all its tasks, by
    what they are spent on, as in `TimeAccount`.
    """

    phase: Phase
    width: TaskCount
    seconds: float
    parts: Mapping[str, float]

    @property
    def busy(self) -> float:
        """Seconds of all its tasks."""
        return sum(self.parts.values())


def forecasts(run: Run, launcher: Launcher, t: int) -> list[Forecast]:
    """Estimates for all phases of iteration t with the tasks of `launcher`, at measured rates, or assumed ones before the first iteration."""
    found, expected, opened = measured(run), [], None
    for phase in phases_of(run.recipe, t):
        if phase.is_array:
            settings = phase.engine(run.recipe) if phase.runs_an_engine else None
            is_open = launcher.keeps_engines and settings is not None and settings == opened
            opened = settings or opened
            expected.append(_of_array(run, phase, t, launcher, found, is_open))
        else:
            expected.append(_of_step(phase, found))
    return expected


def expected_account(run: Run, launcher: Launcher, expected: Sequence[Forecast]) -> TimeAccount:
    """What the account of an iteration with these phases is expected to be."""
    recipe = run.recipe
    arrays = [forecast.phase for forecast in expected if forecast.phase.is_array]
    on_gpus = max(map(launcher.gpus, arrays), default=0) > 0 and (
        launcher.survives or any(gpus_of_task(run, phase) for phase in arrays)
    )
    places = max(map(launcher.gpus if on_gpus else launcher.at_once, arrays), default=1)
    parts = defaultdict[str, float](float)
    for forecast in expected:
        for part, seconds in forecast.parts.items():
            parts[part] += seconds * (forecast.phase.gpus(recipe) if on_gpus else 1)
    seconds = sum(forecast.seconds for forecast in expected)
    used = {part: spent for part, spent in parts.items() if spent > 0}
    idle = max(0.0, places * seconds - sum(used.values()))
    account = TimeAccount("GPU" if on_gpus else "task", places, seconds, used, idle)
    return in_order(account, [forecast.phase for forecast in expected])


def _of_step(phase: Phase, found: Measured) -> Forecast:
    seconds = _typical(found, phase.name, lambda stats: stats.seconds) or 0.0
    return Forecast(phase, TaskCount(1), seconds, {phase.time_part: seconds})


def _of_array(run: Run, phase: Phase, t: int, launcher: Launcher, found: Measured, is_open: bool) -> Forecast:
    """is_open: its engine runs already."""
    expected, cluster = phase.expected(run, t), run.recipe.cluster
    most, at_once = launcher.tasks(phase), launcher.at_once(phase)
    if phase.trains:
        seconds = _of_trainings(phase, expected, found)
        width = task_count_for(cluster, None, 0.0, expected.bundles, most)
        rounds = -(-len(seconds) // min(width.tasks, at_once))
        set_up = _set_up_of_trainings(run, phase, found)
        return Forecast(
            phase,
            width,
            set_up * math.ceil(width.tasks / at_once) + max(max(seconds), fmean(seconds) * rounds),
            {SET_UP: set_up * width.tasks, TRAIN: sum(seconds)},
        )
    rates = rates_of(run, phase, found)
    cost = _typical(found, phase.name, lambda stats: stats.cost) or expected.cost
    width = task_count_for(cluster, rates, cost, expected.bundles, most)
    together = min(width.tasks, at_once)
    # A single process keeps its engine across phases, so a phase may load nothing.
    loads = _typical(found, phase.name, lambda stats: float(stats.loads)) if most == 1 else None
    starts = (0 if is_open else width.tasks) if loads is None else loads
    return Forecast(
        phase,
        width,
        rates.seconds(cost) / together + rates.start_seconds * math.ceil(starts / together),
        {START: rates.start_seconds * starts, **_shared(run, phase, t, rates.seconds(cost), found)},
    )


def _shared(run: Run, phase: Phase, t: int, seconds: float, found: Measured) -> Mapping[str, float]:
    """`seconds` of work by part, where a phase makes several kinds of rows: as measured, else in proportion to their estimated costs."""
    kinds = phase.shares_time
    if not kinds:
        return {phase.time_part: seconds}
    measured = [phases[phase.name].parts for phases in found if phase.name in phases]
    shares = {part: fmean(parts.get(part, 0.0) for parts in measured or [{}]) for part in kinds}
    if not any(shares.values()):
        shares = {part: rows.expected(run, t).cost for part, rows in kinds.items()}
    total = sum(shares.values())
    return {part: seconds * share / total for part, share in shares.items()}


def _of_trainings(phase: Phase, expected: Expected, found: Measured) -> Sequence[float]:
    """Seconds of training for each model that `phase` trains."""
    each = _typical(
        found, phase.name, lambda stats: (stats.parts.get(TRAIN) or stats.busy) / max(stats.items, 1)
    )
    return expected.seconds if each is None else [each] * len(expected.seconds)


def _set_up_of_trainings(run: Run, phase: Phase, found: Measured) -> float:
    """Seconds that a task of `phase` takes until its first update. Stats of earlier versions count them among those of the trainings."""
    measured = _typical(found, phase.name, lambda stats: stats.parts.get(SET_UP, 0.0) / max(stats.tasks, 1))
    if measured is not None or run.recipe.engine.kind == "scripted":
        return measured or 0.0
    return run.recipe.cluster.assumed.set_up_seconds


def _typical(found: Measured, name: str, of: Callable[[PhaseStats], float]) -> float | None:
    """Median over the measured iterations; None where the phase was measured in none."""
    values = [of(phases[name]) for phases in found if name in phases]
    return median(values) if values else None
