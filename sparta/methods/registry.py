"""Methods by the name in the recipe, phases by name and spec: what an attempt says of its phase, and a task's process is told."""

from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, OverTasks, spec_in
from sparta.evaluation.grade import GradeAnswers
from sparta.methods import sparta
from sparta.phases.base import Phase, PhaseSpec
from sparta.phases.init_pool import InitPool
from sparta.phases.train_experts import TrainExperts
from sparta.recipes.schema import Recipe

METHODS: dict[str, tuple[Phase, ...]] = {"sparta": sparta.PHASES}
FUSED: dict[str, tuple[Phase, ...]] = {"sparta": sparta.FUSED}
INIT_POOL: tuple[Phase, ...] = (TrainExperts(), InitPool())
"""The phases of iteration 0, of every method: they make the initial pool."""
_PHASES: dict[str, Phase] = {
    phase.name: phase for phases in (*METHODS.values(), *FUSED.values(), INIT_POOL) for phase in phases
}
_OVER_TASKS: dict[str, type[OverTasks]] = {kind.name: kind for kind in (Evaluate, GradeAnswers)}


def phases_of(recipe: Recipe, t: int) -> tuple[Phase, ...]:
    """The phases of iteration t, in order. Where no expert is trained from data, a run begins with iteration 0 made."""
    if t == 0:
        return INIT_POOL if recipe.pool.experts else INIT_POOL[-1:]
    return (FUSED if recipe.cluster.fused else METHODS)[recipe.method]


def is_phase(name: str, spec: PhaseSpec | None = None) -> bool:
    """Whether there is that phase; what an earlier version wrote down may name one that is no more."""
    try:
        phase_named(name, spec)
    except SpartaError:
        return False
    return True


def phase_named(name: str, spec: PhaseSpec | None = None) -> Phase:
    """The phase called `name`, asked for `spec` if it is one that can be asked for different things. Raises SpartaError where there is none.

    In states of version 0.1.0 the name holds the spec.
    """
    kind = _OVER_TASKS.get(name.partition(":")[0])
    asked = spec or spec_in(name)
    if kind is not None and asked is not None:
        return kind.of(asked)
    if name not in _PHASES:
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    return _PHASES[name]
