"""Methods by the name in the recipe, phases by name and spec: what an attempt says of its phase. Each file of this folder with a METHOD is one."""

import importlib
import pkgutil
from functools import cache

from sparta import methods as folder
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, OverTasks, spec_in
from sparta.evaluation.grade import GradeAnswers
from sparta.methods.base import INIT_POOL, Method
from sparta.names import hint
from sparta.phases.base import Phase, PhaseSpec
from sparta.recipes.schema import Recipe

_OVER_TASKS: dict[str, type[OverTasks]] = {kind.name: kind for kind in (Evaluate, GradeAnswers)}


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
            f"there is no method {recipe.method}; {hint(recipe.method, sorted(known), 'methods')}. Set method in the recipe to one of them"
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
    return (*arrays, *_OVER_TASKS), tuple(steps)


def is_phase(name: str, spec: PhaseSpec | None = None) -> bool:
    """Whether there is that phase; what an earlier version wrote down may name one that is no more."""
    try:
        phase_named(name, spec)
    except SpartaError:
        return False
    return True


def phase_named(name: str, spec: PhaseSpec | None = None, recipe: Recipe | None = None) -> Phase:
    """The phase called `name`, asked for `spec` if it is one that can be asked for different things. Raises SpartaError where there is none.

    recipe: of the run that it is a phase of, whose method says what it does there; without it only what all phases of that name have in common
    may be asked. In states of version 0.1.0 the name holds the spec.
    """
    kind = _OVER_TASKS.get(name.partition(":")[0])
    asked = spec or spec_in(name)
    if kind is not None and asked is not None:
        return kind.of(asked)
    if name not in _phases():
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    own = method_of(recipe).all_phases if recipe is not None else ()
    return next((phase for phase in own if phase.name == name), _phases()[name])
