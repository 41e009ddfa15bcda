"""The learner: the one member of the pool that is aligned."""

from collections.abc import Sequence

from sparta.engines.base import Engine, ModelRef
from sparta.errors import SpartaError
from sparta.names import hint
from sparta.phases.base import Phase
from sparta.pool.members import engine_for, references
from sparta.recipes.schema import Recipe
from sparta.store.run import Run


def learner_of(recipe: Recipe) -> str:
    """The name of the learner. Raises SpartaError if it is not in the pool, or if the pool has several members and none is named."""
    names = [model.name for model in recipe.pool.models]
    start = recipe.baseline.start
    if start is None and len(names) == 1:
        return names[0]
    if start is None:
        raise SpartaError(
            f"the method {recipe.method} aligns one model, but the pool has {len(names)}: name one with baseline.start, or use the best on validation "
            "with pool.derived={best: true, scores: STATE}"
        )
    if start not in names:
        raise SpartaError(
            f"baseline.start is {start}, which is not a member of the pool; {hint(start, names, 'members')}"
        )
    return start


def only_learner(run: Run, t: int) -> Sequence[str]:
    """The learner alone, see `sparta.phases.train.Learners`."""
    return (learner_of(run.recipe),)


def base_of_learner(run: Run) -> str:
    """The learner's base, as the recipe names it."""
    return run.bases[learner_of(run.recipe)]


def engine_of_learner(run: Run, t: int, phase: Phase) -> tuple[Engine, ModelRef]:
    """The engine of `phase`, and the learner at the start of iteration t."""
    model = references(run, t - 1)[learner_of(run.recipe)]
    return engine_for(run, phase.engine(run.recipe), [model]), model
