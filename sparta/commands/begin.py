"""How a run begins, goes on, goes back to an earlier iteration, or branches. Nothing is ever deleted, only set aside."""

from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import holdout_log_file
from sparta.methods.registry import method_of
from sparta.phases.init_pool import InitPool
from sparta.pool.checks import check_pool
from sparta.pool.expert_data import gather_sft_data
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.manifest import verify
from sparta.store.records import Instruction
from sparta.store.run import Run
from sparta.store.temporaries import is_temporary
from sparta.tasks.registry import task_named


def gather(recipe: Recipe) -> list[Instruction]:
    """The instructions that `recipe` names. Raises SpartaError naming file and line, or where there are none."""
    data = recipe.data
    task = task_named(data.task or "own", data)
    items = task.items("train", data)[: data.size]
    if not items:
        raise SpartaError(f"{data.task or data.train} has no instructions: at least one is needed")
    return [Instruction(item.item_id, task.in_combat(item).messages) for item in items]


def begin_or_continue(state: StateDir, recipe: Recipe | None) -> Run:
    """The run in `state`: begun with `recipe` if there is none, else continued.

    Its initial pool is there and committed as iteration 0, unless experts are to be trained from data: then that iteration is for the driver.
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
    if occupied(state, upto=0):
        raise SpartaError(f"{state.root} is not empty and holds no run: choose another --state or empty it")
    _check(recipe)
    instructions = gather(recipe)
    lessons = gather_sft_data(recipe)
    run = Run.prepare(state, recipe)
    files.write_rows(state.instructions, instructions)
    files.remove(run.iteration(0).root)  # left by a launch that was killed before there was a run
    run.info = msgspec.structs.replace(run.info, instructions_sha256=files.sha256_file(state.instructions))
    if lessons:
        files.write_json(state.sft_data, lessons)
        run.info = msgspec.structs.replace(run.info, lessons_sha256=files.sha256_file(state.sft_data))
    else:
        InitPool().execute(run, 0)
    run.save()
    return run


def dry_run_begin(state: StateDir, recipe: Recipe) -> Run:
    """The run that `recipe` would begin in `state`, checked as far as possible and not written."""
    _check(recipe)
    run = Run(state, recipe, Run.describe(recipe))
    run.instructions, run.sft_data = gather(recipe), gather_sft_data(recipe)
    return run


def _check(recipe: Recipe) -> None:
    """What a recipe names must be there before anything is written."""
    assert recipe.pool.derived is None, "a derived pool is resolved where its recipe is loaded"
    method_of(recipe).check(recipe)
    check_pool(recipe)
    data = recipe.data
    for name in recipe.evaluation.tasks:
        task_named(name, data).items("validation", data)
    if data.validation is not None:
        own = task_named("own", data)
        for split in ("validation", "test") if data.test else ("validation",):
            own.items(split, data)


def check_state(run: Run) -> None:
    """Raises SpartaError naming the first file of the committed state that is missing or was changed."""
    for path, digest in (
        (run.state.instructions, run.info.instructions_sha256),
        *([(run.state.sft_data, run.info.lessons_sha256)] if run.info.lessons_sha256 else []),
    ):
        if not path.is_file() or files.sha256_file(path) != digest:
            raise SpartaError(
                f"{path} is missing or was changed since the run began: restore it, or begin anew with another --state"
            )
    require_frozen_recipe(run)
    _require_founded(run)
    verify_chain(run)


def verify_chain(run: Run, upto: int | None = None) -> None:
    """Check the committed iterations of `run`, or those up to `upto`; see `sparta.store.manifest.verify`."""
    verify(run.state, run.info.genesis, upto, method_of(run.recipe).row_types(run))


def scored_paths(state: StateDir) -> list[Path]:
    """What lies in evals/, but for the looks at test splits: what has been seen of one stays seen, whatever becomes of the checkpoint.

    Also but for what writers that were killed have left.
    """
    if not state.evals.is_dir():
        return []
    found = (path for path in state.evals.iterdir() if not is_temporary(path.name))
    return sorted(path for path in found if path != holdout_log_file(state))


def occupied(state: StateDir, upto: int) -> bool:
    """Whether something is in the folder that is neither a run of its own, nor data and models it uses, nor left by a launch that was killed early.

    A launch that was killed before there was a run leaves iterations up to `upto`, and a fork its parent's looks at test splits.
    """
    left = {
        "jobs",
        "README.md",
        "recipe.yaml",
        "data",
        "datasets",
        "models",
        *(state.iteration(n).root.name for n in range(upto + 1)),
    }
    return state.root.exists() and any(
        path.name not in left
        and not is_temporary(path.name)
        and not (path / "run.json").is_file()
        and not (path == state.evals and scored_paths(state) == [])
        for path in state.root.iterdir()
    )


def require_frozen_recipe(run: Run) -> None:
    """Raises SpartaError where recipe.yaml no longer says what the run began with."""
    if run.recipe.hash != run.info.recipe_hash:
        raise SpartaError(
            f"{run.state.recipe_yaml} was changed since the run began: restore it, or begin anew with another --state"
        )


def _require_founded(run: Run) -> None:
    """Raises SpartaError where the initial pool was there and is gone: one that is made anew may be another than that which later rows are from."""
    zero = run.iteration(0)
    was_there = not run.recipe.pool.experts or max(run.state.iterations(), default=0) > 0
    if was_there and not zero.manifest.is_file():
        raise SpartaError(
            f"{zero.root} is missing or has no {zero.manifest.name}, and it is what the run began with: restore it from a copy, or begin anew "
            "with another --state"
        )


def require_same_recipe(run: Run, recipe: Recipe | None) -> None:
    """Raises SpartaError showing the difference where `recipe` would not continue `run` but compute something else."""
    differences = run.recipe.differences(recipe) if recipe is not None else []
    if differences:
        shown = "\n".join(f"  {line}" for line in differences)
        last = run.state.last_committed()
        remedy = (
            "undo the difference, or choose another --state"
            if last is None
            else f"undo the difference, choose another --state, or branch with --resume {run.iteration(last).root} --fork DIR"
        )
        raise SpartaError(f"{run.state.root} was begun with another recipe; {remedy}:\n{shown}")
