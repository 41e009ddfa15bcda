"""How a run begins, goes on, goes back to an earlier iteration, or branches. Nothing is ever deleted, only set aside."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.phases import standings
from sparta.phases.instructions import gather
from sparta.phases.pool import check_pool, install_pool, remove_tree
from sparta.recipe import Recipe
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.manifest import commit, verify
from sparta.store.run import Run


def begin_or_continue(state: StateDir, recipe: Recipe | None) -> Run:
    """The run in `state`: begun with `recipe` if there is none, else continued.

    With `recipe` None the frozen one is used. Raises SpartaError where the recipe differs from the frozen one in anything that could
    change a result (the difference is shown), where the state was edited, or where the pool or the instructions are unusable.
    """
    if state.run_json.is_file():
        run = Run.open(state)
        if recipe is not None:
            require_same_recipe(run, recipe)
            run.refreeze(recipe)
        check_state(run)
        return run
    if recipe is None:
        raise SpartaError(f"{state.root} holds no run: name a recipe to start one")
    if state.root.exists() and any(
        path.name not in ("jobs", "README.md", "recipe.yaml", "data", "iter_00")
        for path in state.root.iterdir()
    ):
        raise SpartaError(f"{state.root} is not empty and holds no run: choose another --state or empty it")
    check_pool(recipe)
    instructions = gather(recipe)
    run = Run.prepare(state, recipe)
    files.write_rows(state.instructions, instructions)
    zero = run.iteration(0)
    remove_tree(zero.root)  # left by a launch that was killed before there was a run
    files.write_json(zero.pool, install_pool(run))
    files.write_json(zero.standing, standings.initial(run))
    run.info = msgspec.structs.replace(run.info, instructions_sha256=files.sha256_file(state.instructions))
    commit(zero, parent=run.info.genesis, files=[zero.pool, zero.standing], rows={})
    run.save()
    return run


def rehearse(state: StateDir, recipe: Recipe) -> Run:
    """The run that `recipe` would begin in `state`, checked as far as possible and not written."""
    check_pool(recipe)
    run = Run(state, recipe, Run.describe(recipe))
    run.instructions = gather(recipe)
    return run


def check_state(run: Run) -> None:
    """Raises SpartaError naming the first file of the committed state that is missing or was changed."""
    if (
        not run.state.instructions.is_file()
        or files.sha256_file(run.state.instructions) != run.info.instructions_sha256
    ):
        raise SpartaError(
            f"{run.state.instructions} is missing or was changed since the run began: restore it, or begin anew with another --state"
        )
    verify(run.state, run.info.genesis)


def go_back(state: StateDir, t: int) -> Run:
    """The run in `state` as it was after iteration t; what came later is moved to superseded/."""
    run = Run.open(state)
    _require_committed(run, t)
    verify(state, run.info.genesis, upto=t)
    later = [state.iteration(n).root for n in state.iterations() if n > t]
    jobs = [state.jobs / folder.name for folder in later]
    evaluations = [state.evals] if later and state.evals.is_dir() else []
    moved = [
        path
        for path in (*later, *jobs, *evaluations, *([state.jobs / "evals"] if evaluations else []))
        if path.exists()
    ]
    if moved:
        aside = _aside(state)
        for path in moved:
            target = aside / path.relative_to(state.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return run


def fork(source: StateDir, t: int, target: StateDir, recipe: Recipe | None) -> Run:
    """A new run in `target` that shares the past of `source` up to iteration t. A new recipe may differ in anything but the pool."""
    parent = Run.open(source)
    _require_committed(parent, t)
    verify(source, parent.info.genesis, upto=t)
    if target.root.exists() and any(target.root.iterdir()):
        raise SpartaError(f"--fork {target.root}: the folder is not empty, choose another")
    recipe = recipe or parent.recipe
    if recipe.pool != parent.recipe.pool or recipe.data != parent.recipe.data:
        raise SpartaError(
            "a fork keeps the pool and the data of its parent: leave both as they are, or begin a new run"
        )
    for n in range(t + 1):
        shutil.copytree(source.iteration(n).root, target.iteration(n).root)
    files.write_bytes(target.instructions, source.instructions.read_bytes())
    run = Run.prepare(target, recipe)
    run.info = msgspec.structs.replace(
        run.info,
        genesis=parent.info.genesis,
        instructions_sha256=parent.info.instructions_sha256,
        forked_from=f"{parent.info.run_id} iteration {t}",
    )
    run.save()
    return run


def _require_committed(run: Run, t: int) -> None:
    committed = run.state.committed()
    if t not in committed:
        raise SpartaError(
            f"iteration {t} of {run.state.root} is not committed (committed: {_ranges(committed)}): resume from one of these, "
            "or launch without --resume to continue where the run stopped"
        )


def _ranges(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else ", ".join(map(str, numbers)) or "none"


def require_same_recipe(run: Run, recipe: Recipe | None) -> None:
    """Raises SpartaError showing the difference where `recipe` would not continue `run` but compute something else."""
    differences = run.recipe.differences(recipe) if recipe is not None else []
    if differences:
        shown = "\n".join(f"  {line}" for line in differences)
        raise SpartaError(
            f"{run.state.root} was begun with another recipe; undo the difference, choose another --state, or branch with "
            f"--resume {run.iteration(run.state.last_committed() or 0).root} --fork DIR:\n{shown}"
        )


def _aside(state: StateDir) -> Path:
    """A new folder below superseded/."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 0
    while (folder := state.superseded / f"{stamp}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
