"""How a run begins, goes on, goes back to an earlier iteration, or branches. Nothing is ever deleted, only set aside."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir, played
from sparta.cluster.cancel import attempts_below
from sparta.cluster.launchers import LAUNCHERS, launcher_named
from sparta.cluster.looks import looks_file
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases.found import Found
from sparta.phases.instructions import gather
from sparta.phases.lessons import gather_lessons
from sparta.phases.pool import remove_tree
from sparta.phases.pool_check import check_pool
from sparta.recipe import Recipe
from sparta.store import files
from sparta.store.layout import IterationDir, StateDir
from sparta.store.manifest import verify
from sparta.store.process import slurm_restarts
from sparta.store.run import Run
from sparta.tasks.registry import task_named


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
    if _occupied(state, upto=0):
        raise SpartaError(f"{state.root} is not empty and holds no run: choose another --state or empty it")
    _check(recipe)
    instructions = gather(recipe)
    lessons = gather_lessons(recipe)
    run = Run.prepare(state, recipe)
    files.write_rows(state.instructions, instructions)
    remove_tree(run.iteration(0).root)  # left by a launch that was killed before there was a run
    run.info = msgspec.structs.replace(run.info, instructions_sha256=files.sha256_file(state.instructions))
    if lessons:
        files.write_json(state.lessons, lessons)
        run.info = msgspec.structs.replace(run.info, lessons_sha256=files.sha256_file(state.lessons))
    else:
        Found().execute(run, 0)
    run.save()
    return run


def rehearse_return(source: StateDir, t: int, recipe: Recipe | None, branch: bool) -> Run:
    """The run in `source` as `go_back` or (`branch`) `fork` would take it up after iteration t, checked and not touched."""
    run = Run.open(source)
    _require_frozen_recipe(run)
    _require_committed(run, t)
    verify(source, run.info.genesis, upto=t)
    if not branch:
        require_same_recipe(run, recipe)
    elif recipe is not None:
        _require_same_pool(run, recipe)
    run.recipe = recipe or run.recipe
    return run


def rehearse(state: StateDir, recipe: Recipe) -> Run:
    """The run that `recipe` would begin in `state`, checked as far as possible and not written."""
    _check(recipe)
    run = Run(state, recipe, Run.describe(recipe))
    run.instructions, run.lessons = gather(recipe), gather_lessons(recipe)
    return run


def _check(recipe: Recipe) -> None:
    """What a recipe names must be there before anything is written."""
    assert recipe.pool.derived is None, "a derived pool is resolved where its recipe is loaded"
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
        *([(run.state.lessons, run.info.lessons_sha256)] if run.info.lessons_sha256 else []),
    ):
        if not path.is_file() or files.sha256_file(path) != digest:
            raise SpartaError(
                f"{path} is missing or was changed since the run began: restore it, or begin anew with another --state"
            )
    _require_frozen_recipe(run)
    _require_founded(run)
    verify(run.state, run.info.genesis)


def go_back(state: StateDir, t: int) -> Run:
    """The run in `state` as it was after iteration t; what came later is moved to superseded/."""
    run = Run.open(state)
    _require_committed(run, t)
    verify(state, run.info.genesis, upto=t)
    later = [state.iteration(n).root for n in reversed(state.iterations()) if n > t]
    for folder in later:
        _require_idle(run, int(folder.name.removeprefix("iter_")))
    # Scores are of committed iterations alone.
    scored = any(n > t for n in state.committed())
    if scored:
        _require_no_scoring(run)
    # Scores first, for they tell checkpoints apart by iteration and model alone; then the latest iteration, so that what is left when
    # this is killed in the middle is a run that stopped somewhere.
    evaluations = [*_scores(state), state.jobs / "evals"] if scored else []
    iterations = [path for folder in later for path in (state.jobs / folder.name, folder)]
    moved = [path for path in (*evaluations, *iterations) if path.exists()]
    if moved:
        aside = _aside(state)
        for path in moved:
            target = aside / path.relative_to(state.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    if job := os.environ.get("SLURM_JOB_ID"):
        files.write_json(state.jobs / "returned.json", Return(job, t))
    return run


def _scores(state: StateDir) -> list[Path]:
    """What lies in evals/, but for the looks at test splits: what has been seen of one stays seen, whatever becomes of the checkpoint.

    Also but for what writers that were killed have left.
    """
    if not state.evals.is_dir():
        return []
    found = (path for path in state.evals.iterdir() if not files.is_temporary(path.name))
    return sorted(path for path in found if path != looks_file(state))


class Return(msgspec.Struct, frozen=True):
    """jobs/returned.json: the SLURM job whose driver went back to iteration t last."""

    job: str
    t: int


def has_returned(state: StateDir, t: int) -> bool:
    """Whether this process is a SLURM job that was requeued, and has gone back to iteration t before: its command is typed once, and meant once."""
    path = state.jobs / "returned.json"
    if slurm_restarts() == 0 or not path.is_file():
        return False
    return files.read_json(path, Return) == Return(os.environ.get("SLURM_JOB_ID", ""), t)


def fork(source: StateDir, t: int, target: StateDir, recipe: Recipe | None) -> Run:
    """A run in `target` that shares the past of `source` up to iteration t. A new recipe may differ in anything but the pool and the data.

    Where `target` is that fork already it is continued.
    """
    parent = Run.open(source)
    _require_frozen_recipe(parent)
    _require_committed(parent, t)
    recipe, origin = recipe or parent.recipe, f"{parent.info.run_id} iteration {t}"
    if target.run_json.is_file() and Run.open(target).info.forked_from == origin:
        return begin_or_continue(target, recipe)
    verify(source, parent.info.genesis, upto=t)
    if target.run_json.is_file() or _occupied(target, upto=t):
        raise SpartaError(f"--fork {target.root}: the folder is not empty, choose another")
    _require_same_pool(parent, recipe)
    for n in range(t + 1):
        _copy_iteration(source.iteration(n), target.iteration(n))
    files.write_bytes(target.instructions, source.instructions.read_bytes())
    if parent.info.lessons_sha256:
        files.write_bytes(target.lessons, source.lessons.read_bytes())
    if looks_file(source).is_file():
        # What has been seen of a test split stays seen.
        files.write_bytes(looks_file(target), looks_file(source).read_bytes())
    run = Run.prepare(target, recipe)
    run.info = msgspec.structs.replace(
        run.info,
        genesis=parent.info.genesis,
        instructions_sha256=parent.info.instructions_sha256,
        lessons_sha256=parent.info.lessons_sha256,
        forked_from=origin,
    )
    run.save()
    return run


def _require_same_pool(parent: Run, recipe: Recipe) -> None:
    wanted, given = recipe.identity(), parent.recipe.identity()
    if any(wanted[part] != given[part] for part in ("pool", "data")):
        raise SpartaError(
            "a fork keeps the pool and the data of its parent: leave both as they are, or begin a new run"
        )


def _occupied(state: StateDir, upto: int) -> bool:
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
        and not files.is_temporary(path.name)
        and not (path / "run.json").is_file()
        and not (path == state.evals and _scores(state) == [])
        for path in state.root.iterdir()
    )


def _copy_iteration(source: IterationDir, target: IterationDir) -> None:
    """`source` in the place of `target`, whole or not at all; one that an earlier launch put there stays."""
    with files.touching(target.root):
        for unfinished in target.root.parent.glob(f".{target.root.name}.*.tmp"):
            remove_tree(unfinished)
        if not target.root.exists():
            temporary = files.temporary_beside(target.root)
            shutil.copytree(source.root, temporary)
            temporary.rename(target.root)
    if files.sha256_file(target.manifest) != files.sha256_file(source.manifest):
        raise SpartaError(f"{target.root} is not a copy of {source.root}: choose another folder for --fork")


def _require_frozen_recipe(run: Run) -> None:
    """Raises SpartaError where recipe.yaml no longer says what the run began with."""
    if run.recipe.hash != run.info.recipe_hash:
        raise SpartaError(
            f"{run.state.recipe_yaml} was changed since the run began: restore it, or begin anew with another --state"
        )


def _require_founded(run: Run) -> None:
    """Raises SpartaError where the initial pool was there and is gone: one that is made anew may be another than that which later rows are from."""
    zero = run.iteration(0)
    was_there = not run.recipe.pool.taught or max(run.state.iterations(), default=0) > 0
    if was_there and not zero.manifest.is_file():
        raise SpartaError(
            f"{zero.root} is missing or has no {zero.manifest.name}, and it is what the run began with: restore it from a copy, or begin anew "
            "with another --state"
        )


def _require_idle(run: Run, t: int) -> None:
    """Raises SpartaError where tasks of iteration t still run: they would go on writing into what comes in its place."""
    for phase in played(run, phases_of(run.recipe, t), t):
        if _in_work(run, AttemptDir(run, phase, t)):
            raise SpartaError(
                f"tasks of {phase.name} of iteration {t} are still running: end them with --cancel, or launch without --resume "
                "to wait for them"
            )


def _require_no_scoring(run: Run) -> None:
    """Raises SpartaError where checkpoints are being scored: scores of one past would be written among those of the next."""
    for attempts in attempts_below(run, run.state.jobs / "evals"):
        if _in_work(run, attempts):
            raise SpartaError(
                f"tasks that {attempts.phase.title} are still running: end them with --cancel, or wait for them with jobs/evaluate.py"
            )


def _in_work(run: Run, attempts: AttemptDir) -> bool:
    """Whether tasks of these attempts run, or may come to run."""
    for name in LAUNCHERS:
        launcher = launcher_named(name, run)
        mine = [attempt for attempt in attempts.all() if attempt.cluster == name]
        if launcher.expected(attempts) or any(launcher.running(attempts, attempt) for attempt in mine):
            return True
    return False


def _require_committed(run: Run, t: int) -> None:
    committed = run.state.committed()
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no pool yet, and so nothing to go back to or to branch from: launch without --resume to continue where it "
            "stopped"
        )
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
        last = run.state.last_committed()
        remedy = (
            "undo the difference, or choose another --state"
            if last is None
            else f"undo the difference, choose another --state, or branch with --resume {run.iteration(last).root} --fork DIR"
        )
        raise SpartaError(f"{run.state.root} was begun with another recipe; {remedy}:\n{shown}")


def _aside(state: StateDir) -> Path:
    """A new folder below superseded/."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 0
    while (folder := state.superseded / f"{stamp}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
