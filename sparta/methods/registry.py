"""Methods by the name in the recipe, phases by the name that a task's process is told."""

from sparta.errors import SpartaError
from sparta.methods import sparta
from sparta.phases.base import Phase
from sparta.phases.evaluate import PREFIX, Evaluate
from sparta.recipe import Recipe

METHODS: dict[str, tuple[Phase, ...]] = {"sparta": sparta.PHASES}
FUSED: dict[str, tuple[Phase, ...]] = {"sparta": sparta.FUSED}
_PHASES: dict[str, Phase] = {
    phase.name: phase for phases in (*METHODS.values(), *FUSED.values()) for phase in phases
}


def phases_of(recipe: Recipe) -> tuple[Phase, ...]:
    """The phases of one iteration, in order."""
    return (FUSED if recipe.cluster.fused else METHODS)[recipe.method]


def phase_named(name: str) -> Phase:
    """The phase called `name`. Raises SpartaError where no method has it."""
    if name.startswith(PREFIX):
        return Evaluate.named(name)
    if name not in _PHASES:
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    return _PHASES[name]
