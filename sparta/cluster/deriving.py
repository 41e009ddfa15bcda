"""A recipe's derived pool resolved: scores of an initial pool are read, members are chosen, and it is said who and why.

Done once, where a recipe is loaded; what is checked and frozen has its members named and derives nothing.
"""

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.cluster.summary import Scale, TaskScores, read_summary
from sparta.cluster.summary_view import in_figures
from sparta.errors import SpartaError
from sparta.phases.derived import derive
from sparta.phases.evaluate import checkpoint_name
from sparta.phases.pool import locate
from sparta.recipe import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.adapter_folder import WEIGHTS


@dataclass(frozen=True)
class _Scored:
    """Validation scores of an initial pool, by model, in the unit of `metric`."""

    state: Path
    task: str
    metric: Scale
    scores: Mapping[str, float]

    @property
    def ranking(self) -> tuple[str, ...]:
        """The best first; those that score the same by name."""
        return tuple(sorted(self.scores, key=lambda name: (-self.scores[name], name)))


def resolved(recipe: Recipe, say: Callable[[str], object] = lambda _: None) -> Recipe:
    """`recipe` with its derived pool resolved (see `derive`); as it is where it derives none. `say` is told who was chosen and why.

    Raises SpartaError where the scores that it goes by are not there, with the command that makes them.
    """
    derived = recipe.pool.derived
    if derived is None:
        return recipe
    scored = _scored(recipe, Path(derived.scores), derived.task) if derived.scores is not None else None
    ranking = scored.ranking if scored is not None else derived.ranking
    whole = derive(recipe, ranking)
    say(_told(recipe, whole, ranking, scored))
    return whole


def _scored(recipe: Recipe, folder: Path, task: str | None) -> _Scored:
    try:
        run = Run.open(StateDir(folder))
    except SpartaError as error:
        raise SpartaError(f"pool.derived.scores: {error}") from None
    task = task or _only_task(run)
    names = [model.name for model in recipe.pool.models]
    if strange := [name for name in names if name not in run.models]:
        raise SpartaError(
            f"pool.derived.scores: the initial pool of {folder} has no {', '.join(strange)}: name the state of a run whose pool this is"
        )
    if others := [name for name in names if _is_another(recipe, run, name)]:
        raise SpartaError(
            f"pool.derived.scores: in {folder} {', '.join(others)} began with other weights than those that this recipe names: name the state of "
            "a run whose pool this is, or rename what is another model"
        )
    known = read_summary(run.state).tasks.get(task, TaskScores([], {}, ""))
    scores = {name: known.validation.get(checkpoint_name(run, 0, name)) for name in names}
    found = {name: score for name, score in scores.items() if score is not None}
    if without := [name for name in names if name not in found]:
        raise SpartaError(
            f"pool.derived.scores: {folder} has no validation score of {', '.join(without)} on {task}: "
            f"python jobs/evaluate.py {folder} --tasks {task} --split validation"
        )
    return _Scored(folder, task, known.metrics[0], found)


def _is_another(recipe: Recipe, run: Run, name: str) -> bool:
    """Whether `name` is an adapter here and, by its weights, another in the initial pool of `run`; where either is missing nobody can tell."""
    [model] = (model for model in recipe.pool.models if model.name == name)
    if model.adapter is None:
        return False
    theirs = run.state.root / run.pool(0)[name].adapter
    pair = Path(locate(model.adapter, recipe.pool.folder)) / WEIGHTS, theirs / WEIGHTS
    return all(path.is_file() for path in pair) and not filecmp.cmp(*pair, shallow=False)


def _only_task(run: Run) -> str:
    """The one task that the run is scored on."""
    tasks = run.recipe.scored_on
    if len(tasks) != 1:
        what = f"is scored on {', '.join(tasks)}" if tasks else "names no task"
        raise SpartaError(
            f"pool.derived.scores: the run in {run.state.root} {what}: say with pool.derived.task which task's scores count"
        )
    return tasks[0]


def _told(recipe: Recipe, whole: Recipe, ranking: Sequence[str], scored: _Scored | None) -> str:
    """Who was chosen and why, a line a model, best first."""
    derived, size = recipe.pool.derived, len(ranking)
    assert derived is not None
    repeated = derived.repeat is not None
    chosen = [name for name in ranking if any(model.name == name for model in whole.pool.models)]
    copies = len(whole.pool.models) // len(chosen)
    times = f", {copies} times each" if copies > 1 else ""
    how = "ranks evenly spread"
    if repeated:
        how = "the best alone" if len(chosen) == 1 else f"the best, the others drawn by seed {recipe.seed}"
    by = (
        f"the validation split of {scored.task} in {scored.state} ({scored.metric.name})"
        if scored is not None
        else "pool.derived.ranking"
    )
    lines = [f"Derived pool: {len(chosen)} of {size} models{times}; {how}; ranked by {by}."]
    for name in chosen:
        rank = ranking.index(name) + 1
        score = f"  {in_figures(scored.scores[name], scored.metric.top):>7}" if scored is not None else ""
        why = "the best" if rank == 1 else "drawn" if repeated else "the last" if rank == size else ""
        lines.append(f"  {rank:>3} of {size}{score}  {name}{f' ({why})' if why else ''}")
    return "\n".join(lines)
