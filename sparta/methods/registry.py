"""Finds methods by their name in the recipe, and phases by the name and spec in an attempt. Each file of this folder with a METHOD is a method."""

import importlib
import pkgutil
import re
from functools import cache
from typing import get_args

from sparta import methods as folder
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, EvaluationPhase, spec_in
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.grade_sets import GradeSets
from sparta.evaluation.sampled import EvaluateBySampling
from sparta.methods.base import INIT_POOL, Method
from sparta.names import hint
from sparta.phases.base import Phase, PhaseSpec
from sparta.recipes.schema import Recipe
from sparta.tasks.base import Split

_EVALUATION_PHASES: dict[str, type[EvaluationPhase]] = {
    kind.name: kind for kind in (Evaluate, GradeAnswers, EvaluateBySampling, GradeSets)
}


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
    """The method of `recipe`. Raises SpartaError if its name is unknown."""
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
    """The phase names that a profile may have a section for: those of job arrays, including evaluations, and those of single jobs."""
    arrays = [phase.name for phase in _phases().values() if phase.is_array]
    steps = [phase.name for phase in _phases().values() if not phase.is_array]
    return (*arrays, *_EVALUATION_PHASES), tuple(steps)


def is_phase(name: str, spec: PhaseSpec | None = None) -> bool:
    """Whether this phase exists; an attempt written by an earlier version may name a phase that was removed."""
    try:
        phase_named(name, spec)
    except SpartaError:
        return False
    return True


def phase_named(name: str, spec: PhaseSpec | None = None, recipe: Recipe | None = None) -> Phase:
    """The phase called `name`, with `spec` if it is one that takes a spec. Raises SpartaError if there is no such phase.

    recipe: of the run, whose method configures the phase. Without it, use only what all phases of that name share. In states of version 0.1.0 the
    name contains the spec.
    """
    kind = _EVALUATION_PHASES.get(name.partition(":")[0])
    parsed = spec or spec_in(name)
    if kind is not None and parsed is not None:
        return kind.of(parsed)
    if name not in _phases():
        raise SpartaError(f"there is no phase {name}: the state was written by another version of the suite")
    own = method_of(recipe).all_phases if recipe is not None else ()
    return next((phase for phase in own if phase.name == name), _phases()[name])


def phase_at(place: str) -> tuple[Phase, int] | None:
    """The phase whose attempts are kept in `place`, a folder below jobs/, and its iteration; None where there is none.

    A phase of evaluations comes with an empty spec.
    """
    phases = (
        *_phases().values(),
        *(kind.of(PhaseSpec(split, ())) for kind in _EVALUATION_PHASES.values() for split in get_args(Split)),
    )
    iteration = re.match(r"iter_(\d+)/", place)
    t = int(iteration[1]) if iteration else 0
    return next(((phase, t) for phase in phases if phase.place(t) == place), None)
