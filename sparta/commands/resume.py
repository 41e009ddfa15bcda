"""How a run goes back to an earlier iteration, or branches from one. Nothing is ever deleted, only set aside."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.registry import LAUNCHERS, launcher_named
from sparta.commands.begin import (
    begin_or_continue,
    occupied,
    require_frozen_recipe,
    require_same_recipe,
    scored_paths,
    verify_chain,
)
from sparta.commands.cancel import attempts_below
from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import holdout_log_file
from sparta.methods.registry import phases_of
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.layout import IterationDir, StateDir
from sparta.store.process import slurm_restarts
from sparta.store.run import Run


def dry_run_resume(source: StateDir, t: int, recipe: Recipe | None, branch: bool) -> Run:
    """The run in `source` as `resume_from` or (`branch`) `fork` would take it up after iteration t, checked and not touched."""
    run = Run.open(source)
    require_frozen_recipe(run)
    _require_committed(run, t)
    verify_chain(run, upto=t)
    if not branch:
        require_same_recipe(run, recipe)
    elif recipe is not None:
        _require_same_pool(run, recipe)
    run.recipe = recipe or run.recipe
    return run


def resume_from(state: StateDir, t: int) -> Run:
    """The run in `state` as it was after iteration t; what came later is moved to superseded/."""
    run = Run.open(state)
    _require_committed(run, t)
    verify_chain(run, upto=t)
    later = [state.iteration(n).root for n in reversed(state.iterations()) if n > t]
    for folder in later:
        _require_idle(run, int(folder.name.removeprefix("iter_")))
    # Scores are of committed iterations alone.
    scored = any(n > t for n in state.committed())
    if scored:
        _require_no_scoring(run)
    # Scores first, for they tell checkpoints apart by iteration and model alone; then the latest iteration, so that what is left when
    # this is killed in the middle is a run that stopped somewhere.
    evaluations = [*scored_paths(state), state.jobs / "evals"] if scored else []
    iterations = [path for folder in later for path in (state.jobs / folder.name, folder)]
    moved = [path for path in (*evaluations, *iterations) if path.exists()]
    if moved:
        aside = _aside(state)
        for path in moved:
            target = aside / path.relative_to(state.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    if job := os.environ.get("SLURM_JOB_ID"):
        files.write_json(state.jobs / "returned.json", ResumePlan(job, t))
    return run


class ResumePlan(msgspec.Struct, frozen=True):
    """jobs/returned.json: the SLURM job whose driver went back to iteration t last."""

    job: str
    t: int


def has_resumed(state: StateDir, t: int) -> bool:
    """Whether this process is a SLURM job that was requeued, and has gone back to iteration t before: its command is typed once, and meant once."""
    path = state.jobs / "returned.json"
    if slurm_restarts() == 0 or not path.is_file():
        return False
    return files.read_json(path, ResumePlan) == ResumePlan(os.environ.get("SLURM_JOB_ID", ""), t)


def fork(source: StateDir, t: int, target: StateDir, recipe: Recipe | None) -> Run:
    """A run in `target` that shares the past of `source` up to iteration t. A new recipe may differ in anything but the pool and the data.

    Where `target` is that fork already it is continued.
    """
    parent = Run.open(source)
    require_frozen_recipe(parent)
    _require_committed(parent, t)
    recipe, origin = recipe or parent.recipe, f"{parent.info.run_id} iteration {t}"
    if target.run_json.is_file() and Run.open(target).info.forked_from == origin:
        return begin_or_continue(target, recipe)
    verify_chain(parent, upto=t)
    if target.run_json.is_file() or occupied(target, upto=t):
        raise SpartaError(f"--fork {target.root}: the folder is not empty, choose another")
    _require_same_pool(parent, recipe)
    for n in range(t + 1):
        _copy_iteration(source.iteration(n), target.iteration(n))
    files.write_bytes(target.instructions, source.instructions.read_bytes())
    if parent.info.lessons_sha256:
        files.write_bytes(target.sft_data, source.sft_data.read_bytes())
    if holdout_log_file(source).is_file():
        # What has been seen of a test split stays seen.
        files.write_bytes(holdout_log_file(target), holdout_log_file(source).read_bytes())
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


def _copy_iteration(source: IterationDir, target: IterationDir) -> None:
    """`source` in the place of `target`, whole or not at all; one that an earlier launch put there stays."""
    files.put_tree(target.root, lambda folder: files.copy_tree(source.root, folder))
    if files.sha256_file(target.manifest) != files.sha256_file(source.manifest):
        raise SpartaError(f"{target.root} is not a copy of {source.root}: choose another folder for --fork")


def _require_idle(run: Run, t: int) -> None:
    """Raises SpartaError where tasks of iteration t still run: they would go on writing into what comes in its place."""
    for phase in with_alternatives(run, phases_of(run.recipe, t), t):
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


def _aside(state: StateDir) -> Path:
    """A new folder below superseded/."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    number = 0
    while (folder := state.superseded / f"{stamp}-{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
