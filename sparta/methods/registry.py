"""Methods by the name in the recipe, phases by the name that a task's process is told."""

from sparta.errors import SpartaError
from sparta.methods import sparta
from sparta.phases.base import Phase
from sparta.phases.evaluate import Evaluate, OverTasks
from sparta.phases.grade import GradeAnswers
from sparta.recipe import Recipe

METHODS: dict[str, tuple[Phase, ...]] = {"sparta": sparta.PHASES}
FUSED: dict[str, tuple[Phase, ...]] = {"sparta": sparta.FUSED}
_PHASES: dict[str, Phase] = {
    phase.name: phase for phases in (*METHODS.values(), *FUSED.values()) for phase in phases
}
_OVER_TASKS: tuple[type[OverTasks], ...] = (Evaluate, GradeAnswers)


def phases_of(recipe: Recipe) -> tuple[Phase, ...]:
    """The phases of one iteration, in order."""
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
