"""Methods by the name in the recipe, phases by the name that a task's process is told."""

from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, OverTasks
from sparta.evaluation.grade import GradeAnswers
from sparta.methods import sparta
from sparta.phases.base import Phase
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
_OVER_TASKS: tuple[type[OverTasks], ...] = (Evaluate, GradeAnswers)


def phases_of(recipe: Recipe, t: int) -> tuple[Phase, ...]:
    """The phases of iteration t, in order. Where no expert is trained from data, a run begins with iteration 0 made."""
    if t == 0:
        return INIT_POOL if recipe.pool.experts else INIT_POOL[-1:]
    return (FUSED if recipe.cluster.fused else METHODS)[recipe.method]


def is_phase(name: str) -> bool:
    """Whether `name` is a phase's; what an earlier version wrote down may name one that is no more."""
    try:
        phase_named(name)
    except SpartaError:
        return False
    return True


def phase_named(name: str) -> Phase:
    """The phase called `name`. Raises SpartaError where no method has it."""
    for kind in _OVER_TASKS:
        if name.startswith(kind.prefix):
            return kind.named(name)
    if name not in _PHASES:
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    return _PHASES[name]
