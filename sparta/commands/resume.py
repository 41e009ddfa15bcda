"""How a run goes back to an earlier iteration, or branches from one. Nothing is ever deleted, only set aside."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.registry import LAUNCHERS, launcher_named
from sparta.commands.begin import (
    Opening,
    check_changes,
    check_state,
    occupied,
    require_frozen_recipe,
    require_same_recipe,
    scored_paths,
    set_aside,
)
from sparta.commands.cancel import attempts_below
from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import copy_accesses
from sparta.methods.registry import method_of, phases_of
from sparta.names import quoted, suggested
from sparta.recipes.schema import Recipe
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.layout import IterationDir, StateAfter, StateDir
from sparta.store.manifest import FileEntry, read_manifest
from sparta.store.process import slurm_restarts
from sparta.store.run import Run, refuse_lost_run


@dataclass(frozen=True)
class Resumption(Opening):
    """A run that goes back to the end of iteration t. frozen: as it was opened, with the recipe that it has had so far."""

    run: Run
    frozen: Run
    t: int

    def carry_out(self, say: Callable[[str], None]) -> Run:
        """The run as it was after iteration t; what came later is moved to superseded/."""
        run, state = self.frozen, self.frozen.state
        later, scores = _later(run, self.t), _scores_of_later(run, self.t)
        # Tasks may have been started since this was looked at.
        _require_idle(run, later, bool(scores))
        # Scores first, for they tell checkpoints apart by iteration and model alone; then the latest iteration, so that what is left when
        # this is killed in the middle is a run that stopped somewhere.
        iterations = [path for n in later for path in _of_iteration(state, n)]
        if moved := [path for path in (*scores, *iterations) if path.exists()]:
            set_aside(state, moved)
        if job := os.environ.get("SLURM_JOB_ID"):
            files.write_json(state.jobs / "returned.json", ResumePlan(job, self.t))
        run.refreeze(self.run.recipe)
        return run


def prepare_resume(run: Run, t: int, recipe: Recipe | None) -> Resumption:
    """`run` back at the end of iteration t, to go on with `recipe` (None: as it is). Raises SpartaError where it cannot go back there."""
    require_committed(run, t)
    require_same_recipe(run, recipe)
    check_state(run, upto=t)
    _require_idle(run, _later(run, t), bool(_scores_of_later(run, t)))
    recipe = recipe or run.recipe
    check_changes(run, recipe, t)
    return Resumption(Run(StateAfter(run.state.root, run.state, t), recipe, run.info), run, t)


def _later(run: Run, t: int) -> list[int]:
    """Iterations after t that have begun, the latest first."""
    return [n for n in reversed(run.state.iterations()) if n > t]


def _of_iteration(state: StateDir, n: int) -> tuple[Path, Path]:
    """Where iteration n and its jobs are."""
    folder = state.iteration(n).root
    return state.jobs / folder.name, folder


def _scores_of_later(run: Run, t: int) -> list[Path]:
    """All scores, where there may be some of iterations after t; scores are of committed iterations alone."""
    if any(n > t for n in run.state.committed()):
        return [*scored_paths(run.state), run.state.jobs / "evals"]
    return []


class ResumePlan(msgspec.Struct, frozen=True):
    """jobs/returned.json: the SLURM job whose driver went back to iteration t last."""

    job: str
    t: int


def has_resumed(state: StateDir, t: int) -> bool:
    """Whether this process is a SLURM job that was requeued, and has gone back to iteration t before: its command is typed once, and meant once."""
    path = state.jobs / "returned.json"
    if slurm_restarts() == 0 or not present(path):
        return False
    return files.read_json(path, ResumePlan) == ResumePlan(os.environ.get("SLURM_JOB_ID", ""), t)


@dataclass(frozen=True)
class Fork(Opening):
    """A run that is not there yet, in the folder `target`, and shares the past of `parent` up to iteration t."""

    run: Run
    target: StateDir
    parent: Run
    t: int

    def carry_out(self, say: Callable[[str], None]) -> Run:
        source, target, run = self.parent.state, self.target, Run(self.target, self.run.recipe, self.run.info)
        own = _own_start(run, source) if self.t == 0 else {}
        for n in range(self.t + 1):
            _copy_iteration(source.iteration(n), target.iteration(n), own)
        files.write_bytes(target.instructions, files.read_bytes(source.instructions))
        if run.info.lessons_sha256:
            files.write_bytes(target.sft_data, files.read_bytes(source.sft_data))
        if run.info.gold_sha256:
            files.write_bytes(target.gold, files.read_bytes(source.gold))
        copy_accesses(source, target)
        run.freeze()
        run.save()
        return run


def prepare_fork(parent: Run, t: int, target: StateDir, recipe: Recipe | None) -> Fork:
    """A run in `target` that shares the past of `parent` up to iteration t and goes on with `recipe` (None: the parent's).

    A new recipe may differ in anything but the pool and the data. Raises SpartaError where it cannot branch there.
    """
    require_frozen_recipe(parent)
    require_committed(parent, t)
    recipe = recipe or parent.recipe
    _require_same_pool(parent, recipe)
    _require_its_method(parent, recipe, t)
    _require_room(target, t)
    check_state(parent, upto=t)
    check_changes(parent, recipe, t)
    info = msgspec.structs.replace(
        Run.describe(recipe),
        # What is played from the start is played by its own rules alone.
        genesis=parent.info.genesis if t > 0 else recipe.hash,
        instructions_sha256=parent.info.instructions_sha256,
        lessons_sha256=parent.info.lessons_sha256,
        gold_sha256=parent.info.gold_sha256,
        forked_from=parent.info.origin(t),
        day=parent.day.isoformat(),
    )
    return Fork(Run(StateAfter(target.root, parent.state, t), recipe, info), target, parent, t)


def is_fork_of(run: Run, parent: Run, t: int) -> bool:
    """Whether `run` has branched from `parent` after iteration t."""
    return run.info.forked_from == parent.info.origin(t)


def _require_room(target: StateDir, t: int) -> None:
    """Raises SpartaError where `target` holds anything but what a fork from iteration t has left that was killed before it was a run."""
    if not present(target.run_json):
        refuse_lost_run(target, upto=t)
    if present(target.run_json) or occupied(target, upto=t):
        raise SpartaError(f"{quoted('--fork', target.root)}: the folder is not empty, choose another")


def _own_start(run: Run, source: StateDir) -> dict[str, bytes]:
    """What the fork `run` of the initial pool in `source` has otherwise in it, by file name: its standings are by its own rules."""
    zero = source.iteration(0)
    manifest, standing = read_manifest(zero), files.encode_json(standings.initial(run))
    entry = FileEntry(len(standing), hashlib.sha256(standing).hexdigest())
    own = msgspec.structs.replace(
        manifest, parent=run.info.genesis, files={**manifest.files, zero.standing.name: entry}
    )
    return {zero.standing.name: standing, zero.manifest.name: files.encode_json(own)}


def _require_same_pool(parent: Run, recipe: Recipe) -> None:
    wanted, given = recipe.identity(), parent.recipe.identity()
    if any(wanted[part] != given[part] for part in ("pool", "data")):
        raise SpartaError(
            "a fork keeps the pool and the data of its parent: leave both as they are, or begin a new run"
        )


def _require_its_method(parent: Run, recipe: Recipe, t: int) -> None:
    """Raises SpartaError where `recipe` has a method that does not suit it, or another one than that which made the iterations that are shared."""
    method = method_of(recipe)
    method.check(recipe)
    if not parent.info.gold_sha256 and method.gold(recipe):
        raise SpartaError(
            f"{parent.state.root} was begun without the gold answers that the method {method.name} needs: begin a new run"
        )
    if t > 0 and recipe.method != parent.recipe.method:
        raise SpartaError(
            f"a fork from iteration {t} keeps its method, {parent.recipe.method}, which made what it shares with its parent: to go on with "
            f"{recipe.method}, branch from the initial pool, {quoted('--resume', parent.iteration(0).root)}, or begin a new run"
        )


def _copy_iteration(source: IterationDir, target: IterationDir, own: Mapping[str, bytes]) -> None:
    """`source` in the place of `target`, whole or not at all, with `own` files in it; one that an earlier launch put there stays."""

    def fill(folder: Path) -> None:
        files.copy_tree(source.root, folder)
        for name, content in own.items():
            (folder / name).write_bytes(content)

    files.put_tree(target.root, fill)
    with files.os_errors_named(target.root):
        wanted = own.get(source.manifest.name) or source.manifest.read_bytes()
        if not present(target.manifest) or target.manifest.read_bytes() != wanted:
            raise SpartaError(
                f"{target.root} is not a copy of {source.root} as this fork needs it: choose another folder for --fork"
            )


def _require_idle(run: Run, iterations: Sequence[int], scores: bool) -> None:
    """Raises SpartaError where tasks of `iterations` still run: they would go on writing into what comes in their place. `scores`: tasks that
    score checkpoints as well.
    """
    for t in iterations:
        for phase in with_alternatives(run, phases_of(run.recipe, t), t):
            if _in_work(run, AttemptDir(run, phase, t)):
                raise SpartaError(
                    f"tasks of {phase.name} of iteration {t} are still running: end them with --cancel, or launch without --resume "
                    "to wait for them"
                )
    if scores:
        _require_no_scoring(run)


def _require_no_scoring(run: Run) -> None:
    """Raises SpartaError where checkpoints are being scored: scores of one past would be written among those of the next."""
    for attempts in attempts_below(run, run.state.jobs / "evals"):
        if _in_work(run, attempts):
            raise SpartaError(
                f"tasks that {attempts.phase.title} are still running: end them with --cancel, or wait for them with {suggested('evaluate', run.state.root)}"
            )


def _in_work(run: Run, attempts: AttemptDir) -> bool:
    """Whether tasks of these attempts run, or may come to run."""
    for name in LAUNCHERS:
        launcher = launcher_named(name, run)
        mine = [attempt for attempt in attempts.all() if attempt.cluster == name]
        if launcher.expected(attempts) or any(launcher.running(attempts, attempt) for attempt in mine):
            return True
    return False


def require_committed(run: Run, t: int) -> None:
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
