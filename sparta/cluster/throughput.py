"""How fast one task works and how long it takes to start: measured in the run's committed iterations, assumed before the first one."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from sparta.engines.stopwatch import SET_UP, START
from sparta.methods.registry import phase_named
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, PhaseStats

Measured = Sequence[Mapping[str, PhaseStats]]
"""Stats of phases by name, for each iteration, oldest first."""


class Rates(NamedTuple):
    """Rates of one task of a phase with an engine.

    throughput: cost units (see sparta/phases/token_costs.py) a second. start_seconds: to load a base.
    """

    throughput: float
    start_seconds: float

    @property
    def start_cost(self) -> float:
        """The work that fits into the time of loading a base, in cost units."""
        return self.throughput * self.start_seconds

    def seconds(self, cost: float) -> float:
        return cost / self.throughput


def measured(run: Run) -> Measured:
    """Measurements of the committed iterations. An iteration whose driver was killed before it measured is left out.

    Iterations that a fork inherits from its parent are scaled to the work of the fork's own recipe.
    """
    found = []
    for t in (t for t in run.state.committed() if t > 0):
        stats = files.read_measured(run.iteration(t).stats, IterationStats)
        if stats is not None and stats.phases:
            found.append(stats.phases if t > run.info.inherited else _converted(run, t, stats))
    return found


def _converted(run: Run, t: int, stats: IterationStats) -> Mapping[str, PhaseStats]:
    """The stats of iteration t, which another recipe made, scaled to the work of the recipe of `run`."""
    found = {}
    for name, phase in stats.phases.items():
        share = _share_of_work(run, t, name, stats)
        found[name] = msgspec.structs.replace(
            phase,
            seconds=phase.seconds * share,
            busy=phase.busy * share,
            cost=phase.cost * share,
            work_seconds=phase.work_seconds * share,
            parts={
                # Starts and set-up take as long for any work.
                part: seconds if part == SET_UP or part.startswith(START) else seconds * share
                for part, seconds in phase.parts.items()
            },
        )
    return found


def _share_of_work(run: Run, t: int, name: str, stats: IterationStats) -> float:
    """The work of a phase under the recipe of `run`, divided by its work when it was measured.

    The recipe gives the cost of a phase whose items do not depend on the plan, such as training. The others scale with the number of combats.
    """
    phase, cost = phase_named(name, recipe=run.recipe), stats.phases[name].cost
    if phase.is_array and not phase.needs_plan and cost > 0:
        return sum(item.cost for item in phase.work(run, t)) / cost
    return run.recipe.combats / stats.combats


def rates_of(run: Run, phase: Phase, found: Measured | None = None) -> Rates:
    """The rates of `phase`: measured ones of its own, else of all phases with an engine, else the assumed ones.

    found: the result of `measured`, if the caller has it. Engines without weights start immediately.
    """
    found = measured(run) if found is None else found
    assumed = run.recipe.cluster.assumed
    throughput = _of_phase_or_all(found, phase, _throughput) or assumed.tokens_per_second
    if phase.engine(run.recipe).kind in ("scripted", "api"):
        return Rates(throughput, 0.0)
    start = _of_phase_or_all(found, phase, _start_seconds)
    return Rates(throughput, assumed.start_seconds if start is None else start)


def _throughput(phases: Sequence[PhaseStats]) -> float | None:
    cost, seconds = sum(phase.cost for phase in phases), sum(phase.work_seconds for phase in phases)
    return cost / seconds if cost > 0 and seconds > 0 else None


def _start_seconds(phases: Sequence[PhaseStats]) -> float | None:
    loads = sum(phase.loads for phase in phases)
    # Stats of early versions have loads without load_seconds.
    seconds = sum(phase.load_seconds for phase in phases)
    return seconds / loads if loads and seconds else None


def _of_phase_or_all(
    found: Measured, phase: Phase, rate: Callable[[Sequence[PhaseStats]], float | None]
) -> float | None:
    """Median over iterations of the rate of `phase`, else of all phases with an engine; None where neither was measured."""
    own = [rate([phases[phase.name]]) for phases in found if phase.name in phases]
    all_of_them = [
        rate([stats for name, stats in phases.items() if phase_named(name).runs_an_engine])
        for phases in found
    ]
    for values in (own, all_of_them):
        if known := [value for value in values if value is not None]:
            return median(known)
    return None
