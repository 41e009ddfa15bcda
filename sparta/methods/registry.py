"""Methods by the name in the recipe, phases by the name that a task's process is told."""

from sparta.errors import SpartaError
from sparta.methods.sparta import PHASES
from sparta.phases.base import Phase
from sparta.phases.evaluate import PREFIX, Evaluate

METHODS: dict[str, tuple[Phase, ...]] = {"sparta": PHASES}


def phases_of(method: str) -> tuple[Phase, ...]:
    """The phases of one iteration of `method`, in order."""
    return METHODS[method]


def phase_named(name: str) -> Phase:
    """The phase called `name`. Raises SpartaError where no method has it."""
    if name.startswith(PREFIX):
        return Evaluate.named(name)
    for phases in METHODS.values():
        for phase in phases:
            if phase.name == name:
                return phase
    raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
