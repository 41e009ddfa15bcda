"""How fast one task works and how long it takes to start: measured in the iterations that this run has committed, assumed before."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from sparta.methods.registry import phase_named
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, PhaseStats

Measured = Sequence[Mapping[str, PhaseStats]]
"""Of iterations, oldest first: phases by name."""


class Rates(NamedTuple):
    """Of one task of a phase that runs an engine. throughput: cost (see sparta/phases/token_costs.py) a second. start_seconds: to load a base."""

    throughput: float
    start_seconds: float

    @property
    def start_cost(self) -> float:
        """What could have been done while a base was loaded."""
        return self.throughput * self.start_seconds

    def seconds(self, cost: float) -> float:
        return cost / self.throughput


def measured(run: Run) -> Measured:
    """What was measured in the iterations that are committed; one whose driver was killed before it came to measuring is left out.

    The past that a fork has of its parent is converted to the work that its own recipe has.
    """
    found = []
    for t in (t for t in run.state.committed() if t > 0):
        stats = files.read_measured(run.iteration(t).stats, IterationStats)
        if stats is not None and stats.phases:
            found.append(stats.phases if t > run.info.inherited else _converted(run, t, stats))
    return found


def _converted(run: Run, t: int, stats: IterationStats) -> Mapping[str, PhaseStats]:
    """The phases of iteration t, made by another recipe, as if they had had the work that they have by that of `run`."""
    found = {}
    for name, phase in stats.phases.items():
        share = _share_of_work(run, t, name, stats)
        found[name] = msgspec.structs.replace(
            phase,
            seconds=phase.seconds * share,
            busy=phase.busy * share,
            cost=phase.cost * share,
            work_seconds=phase.work_seconds * share,
        )
    return found


def _share_of_work(run: Run, t: int, name: str, stats: IterationStats) -> float:
    """The work of a phase by the recipe of `run`, in units of what it was when it was measured.

    Of a phase whose items do not depend on the plan, such as training, the recipe says the cost; all others go with the number of combats.
    """
    phase, cost = phase_named(name, recipe=run.recipe), stats.phases[name].cost
    if phase.is_array and not phase.needs_plan and cost > 0:
        return sum(item.cost for item in phase.work(run, t)) / cost
    return run.recipe.combats / stats.combats


def rates_of(run: Run, phase: Phase, found: Measured | None = None) -> Rates:
    """The rates of `phase`: its own, or those of all phases with an engine where it was never measured, or assumed ones.

    found: what `measured` says, where it was asked already. Engines without weights start at once.
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
    # Before seconds of loads were measured there were loads that took none.
    seconds = sum(phase.load_seconds for phase in phases)
    return seconds / loads if loads and seconds else None


def _of_phase_or_all(
    found: Measured, phase: Phase, rate: Callable[[Sequence[PhaseStats]], float | None]
) -> float | None:
    """Median over iterations of the rate of `phase`, else of all phases with an engine together; None where neither was measured."""
    own = [rate([phases[phase.name]]) for phases in found if phase.name in phases]
    all_of_them = [
        rate([stats for name, stats in phases.items() if phase_named(name).runs_an_engine])
        for phases in found
    ]
    for values in (own, all_of_them):
        if known := [value for value in values if value is not None]:
            return median(known)
    return None
