"""Resolves a recipe's derived pool: reads scores of an initial pool, chooses members, and reports which and why.

This happens once, when a recipe is loaded; checked and frozen recipes name their members and derive nothing.
"""

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.evaluation.answer import checkpoint_name
from sparta.evaluation.summary import Scale, TaskScores, read_summary
from sparta.evaluation.tables import in_figures
from sparta.names import suggested
from sparta.pool.members import locate
from sparta.recipes.load import validated
from sparta.recipes.pool import Derived, Model, Pool
from sparta.recipes.schema import Recipe
from sparta.rng import stream
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.adapter_folder import WEIGHTS


def derive(recipe: Recipe, ranking: Sequence[str]) -> Recipe:
    """`recipe` with `pool.derived` replaced by the members that it chooses; unchanged if it derives none.

    ranking: the names of all members, best first. Members keep the order of the pool; copies, named <name>-2, <name>-3 and so on, follow
    their original. Raises SpartaError if the ranking does not match the pool, the pool has copies already, or the numbers do not fit its size.
    """
    pool, derived = recipe.pool, recipe.pool.derived
    if derived is None:
        return recipe
    _require_originals(pool)
    _require_ranking(pool, ranking)
    if derived.best:
        chosen = {ranking[0]}
    else:
        chosen = (
            _repeated(recipe.seed, pool, derived, ranking) if derived.repeat else _spread(derived, ranking)
        )
    copies = len(pool.models) // len(chosen) if derived.repeat else 1
    models = [
        one for model in pool.models if model.name in chosen for one in _with_copies(pool, model, copies)
    ]
    tree = recipe.model_dump(mode="json")
    tree["pool"] |= {"models": models, "derived": None}
    return validated(Recipe, tree, f"recipe {recipe.name}, its derived pool")


def _repeated(seed: int, pool: Pool, derived: Derived, ranking: Sequence[str]) -> set[str]:
    """The best, and others sampled from all the rest, regardless of rank. A larger sample contains the smaller ones."""
    size, distinct = len(pool.models), derived.repeat or 0
    if size % distinct:
        fitting = ", ".join(str(count) for count in range(1, size + 1) if size % count == 0)
        raise SpartaError(
            f"pool.derived.repeat is {distinct}, which does not divide the pool's {size} models: set it to one of {fitting}"
        )
    best, *_ = ranking
    others = [model.name for model in pool.models if model.name != best]
    drawn = stream(seed, "pool", "repeat").sample(others, len(others))
    return {best, *drawn[: distinct - 1]}


def _spread(derived: Derived, ranking: Sequence[str]) -> set[str]:
    """The first, the last, and evenly spaced ranks between them, rounded to the better. Of ten: 1, 5, 10; or 1, 3, 5, 7, 10; or 1, 2, 4, 5, 7, 8, 10."""
    count, size = derived.spread or 0, len(ranking)
    if count > size:
        raise SpartaError(
            f"pool.derived.spread is {count}, but the pool has {size} models: set it to {size} at most"
        )
    return {ranking[place * (size - 1) // (count - 1)] for place in range(count)}


def _with_copies(pool: Pool, model: Model, count: int) -> list[dict[str, Any]]:
    """`model` and its copies, `count` in all."""
    taken = {other.name for other in pool.models}
    names = [f"{model.name}-{number}" for number in range(2, count + 1)]
    if clash := next((name for name in names if name in taken), None):
        raise SpartaError(
            f"pool.derived would name a copy of {model.name} {clash}, but the pool already has a model of that name: rename that model"
        )
    return [model.model_dump(mode="json"), *({"name": name, "copy_of": model.name} for name in names)]


def _require_originals(pool: Pool) -> None:
    for model in pool.models:
        if model.copy_of is not None:
            raise SpartaError(
                f"pool.derived makes the copies, but {model.name} is a copy of {model.copy_of} already: leave pool.derived out, "
                "or start from a recipe without copies"
            )


def _require_ranking(pool: Pool, ranking: Sequence[str]) -> None:
    names = [model.name for model in pool.models]
    if sorted(ranking) == sorted(names):
        return
    wrong = (
        ("lacks", [name for name in names if name not in ranking]),
        ("names unknown models", [name for name in dict.fromkeys(ranking) if name not in names]),
        ("names twice", [name for name in dict.fromkeys(ranking) if ranking.count(name) > 1]),
    )
    faults = "; ".join(f"{what}: {', '.join(which)}" for what, which in wrong if which)
    raise SpartaError(f"pool.derived needs a ranking with each model of the pool once, but this one {faults}")


@dataclass(frozen=True)
class _PoolScores:
    """Validation scores of an initial pool, by model, in the unit of `metric`."""

    state: Path
    task: str
    metric: Scale
    scores: Mapping[str, float]

    @property
    def ranking(self) -> tuple[str, ...]:
        """The models, best first; ties by name."""
        return tuple(sorted(self.scores, key=lambda name: (-self.scores[name], name)))


def resolved(recipe: Recipe, say: Callable[[str], object] = lambda _: None) -> Recipe:
    """`recipe` with its derived pool resolved (see `derive`); unchanged if it derives none. say: receives a report of the choice.

    Raises SpartaError if the scores are missing, with the command that makes them.
    """
    derived = recipe.pool.derived
    if derived is None:
        return recipe
    scored = _scored(recipe, Path(derived.scores), derived.task) if derived.scores is not None else None
    ranking = scored.ranking if scored is not None else derived.ranking
    complete = derive(recipe, ranking)
    say(_report(recipe, complete, ranking, scored))
    return complete


def _scored(recipe: Recipe, folder: Path, task: str | None) -> _PoolScores:
    try:
        run = Run.open(StateDir(folder))
    except SpartaError as error:
        raise SpartaError(f"pool.derived.scores: {error}") from None
    task = task or _only_task(run)
    names = [model.name for model in recipe.pool.models]
    if unknown := [name for name in names if name not in run.models]:
        raise SpartaError(
            f"pool.derived.scores: the initial pool of {folder} has no {', '.join(unknown)}: name the state of a run with this pool"
        )
    if others := [name for name in names if _has_other_weights(recipe, run, name)]:
        raise SpartaError(
            f"pool.derived.scores: in {folder}, {', '.join(others)} began with other weights than in this recipe: name the state of "
            "a run with this pool, or rename the models that differ"
        )
    known = read_summary(run.state).tasks.get(task, TaskScores([], {}, ""))
    scores = {name: known.validation.get(checkpoint_name(run, 0, name)) for name in names}
    found = {name: score for name, score in scores.items() if score is not None}
    if without := [name for name in names if name not in found]:
        raise SpartaError(
            f"pool.derived.scores: {folder} has no validation score of {', '.join(without)} on {task}: "
            f"{suggested('evaluate', folder, '--tasks', task, '--split', 'validation')}"
        )
    return _PoolScores(folder, task, known.metrics[0], found)


def _has_other_weights(recipe: Recipe, run: Run, name: str) -> bool:
    """Whether the recipe's adapter `name` differs from the one in the initial pool of `run`; False if either file is missing."""
    [model] = (model for model in recipe.pool.models if model.name == name)
    if model.adapter is None:
        return False
    theirs = run.state.inside(run.pool(0)[name].adapter)
    pair = Path(locate(model.adapter, recipe.pool.folder)) / WEIGHTS, theirs / WEIGHTS
    return all(path.is_file() for path in pair) and not filecmp.cmp(*pair, shallow=False)


def _only_task(run: Run) -> str:
    """The only task that the run is scored on. Raises SpartaError if there is not exactly one."""
    tasks = run.recipe.scored_on
    if len(tasks) != 1:
        what = f"is scored on {', '.join(tasks)}" if tasks else "names no task"
        raise SpartaError(
            f"pool.derived.scores: the run in {run.state.root} {what}: set pool.derived.task to the task whose scores count"
        )
    return tasks[0]


def _report(recipe: Recipe, complete: Recipe, ranking: Sequence[str], scored: _PoolScores | None) -> str:
    """Which models were chosen and why, one line each, best first."""
    derived, size = recipe.pool.derived, len(ranking)
    assert derived is not None
    repeated = derived.repeat is not None
    chosen = [name for name in ranking if any(model.name == name for model in complete.pool.models)]
    copies = len(complete.pool.models) // len(chosen)
    times = f", {copies} times each" if copies > 1 else ""
    how = "the best alone" if derived.best else "ranks evenly spread"
    if repeated:
        how = "only the best" if len(chosen) == 1 else f"the best, and others sampled with seed {recipe.seed}"
    by = (
        f"the validation split of {scored.task} in {scored.state} ({scored.metric.name})"
        if scored is not None
        else "pool.derived.ranking"
    )
    lines = [f"Derived pool: {len(chosen)} of {size} models{times}; {how}; ranked by {by}."]
    for name in chosen:
        rank = ranking.index(name) + 1
        score = f"  {in_figures(scored.scores[name], scored.metric.top):>7}" if scored is not None else ""
        why = "the best" if rank == 1 else "sampled" if repeated else "the last" if rank == size else ""
        lines.append(f"  {rank:>3} of {size}{score}  {name}{f' ({why})' if why else ''}")
    return "\n".join(lines)
