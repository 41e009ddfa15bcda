"""Methods by the name in the recipe, phases by the name that a task's process is given. Each file of this folder that has a METHOD is one."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache

from sparta import methods as folder
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, OverTasks
from sparta.evaluation.grade import GradeAnswers
from sparta.methods.base import INIT_POOL, Method
from sparta.phases.base import Phase
from sparta.recipes.schema import Recipe

_OVER_TASKS: tuple[type[OverTasks], ...] = (Evaluate, GradeAnswers)


@cache
def methods() -> dict[str, Method]:
    """All methods, by name."""
    modules = (
        importlib.import_module(f"{folder.__name__}.{info.name}")
        for info in pkgutil.iter_modules(folder.__path__)
    )
    found: list[Method] = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in found}


def method_of(recipe: Recipe) -> Method:
    """The method of `recipe`. Raises SpartaError where there is none of its name."""
    known = methods()
    if recipe.method not in known:
        raise SpartaError(
            f"there is no method {recipe.method}; known methods: {', '.join(sorted(known))}. Set method in the recipe to one of them"
        )
    return known[recipe.method]


def phases_of(recipe: Recipe, t: int) -> tuple[Phase, ...]:
    """The phases of iteration t, in order."""
    return method_of(recipe).phases(recipe, t)


@cache
def _phases() -> dict[str, Phase]:
    phases = (*INIT_POOL, *(phase for method in methods().values() for phase in method.all_phases))
    found: dict[str, Phase] = {}
    for phase in phases:
        other = found.setdefault(phase.name, phase)
        assert type(other) is type(phase), f"two phases are called {phase.name}"
    return found


def sections() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a profile may give a shape of its own: the names of phases that are arrays, those of evaluations among them, and of those that are not."""
    arrays = [phase.name for phase in _phases().values() if phase.is_array]
    steps = [phase.name for phase in _phases().values() if not phase.is_array]
    return (*arrays, *_of_evaluations()), tuple(steps)


def _of_evaluations() -> Iterator[str]:
    return (kind.prefix.removesuffix(":") for kind in _OVER_TASKS)


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
    if name not in _phases():
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    return _phases()[name]
