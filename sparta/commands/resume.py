"""How a launch rolls a run back to an earlier iteration, or branches from one. Nothing is ever deleted, only set aside."""

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
    require_adapters,
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
from sparta.store.proved import Proved
from sparta.store.pruned import pruned_file, read_pruned, split_after
from sparta.store.run import Run, refuse_lost_run
from sparta.verify.begun import require_frozen_recipe


@dataclass(frozen=True)
class Resumption(Opening):
    """A run rolled back to the end of iteration t. frozen: the run as opened, with its recipe so far. proved: its files that were checked."""

    run: Run
    frozen: Run
    t: int
    proved: Proved

    def carry_out(self, say: Callable[[str], None]) -> Run:
        """Restore the run as it was after iteration t; everything later is moved to superseded/."""
        run, state = self.frozen, self.frozen.state
        later, scores = _later(run, self.t), _scores_of_later(run, self.t)
        # Tasks may have been started since the first check.
        require_idle(run, later, bool(scores))
        # Scores first: they name checkpoints by iteration and model only, so they must not outlive those. Then the latest iteration first, so
        # that a kill in between leaves a valid, shorter run.
        iterations = [path for n in later for path in _of_iteration(state, n)]
        upto, of_later = split_after(read_pruned(state), state, self.t)
        if of_later.files:
            # Before they are moved: a kill in between makes a launch refuse the later iterations, which going back again mends.
            files.write_json(pruned_file(state), upto)
        if moved := [path for path in (*scores, *iterations) if path.exists()]:
            aside = set_aside(state, moved)
            if of_later.files:
                files.write_json(aside / pruned_file(state).name, of_later)
        if job := os.environ.get("SLURM_JOB_ID"):
            files.write_json(state.jobs / "returned.json", ResumePlan(job, self.t))
        run.refreeze(self.run.recipe)
        self.proved.save()
        return run


def prepare_resume(run: Run, t: int, recipe: Recipe | None) -> Resumption:
    """Roll `run` back to the end of iteration t and continue with `recipe` (None: its own). Raises SpartaError where that is not possible."""
    require_committed(run, t)
    require_same_recipe(run, recipe)
    proved = check_state(run, upto=t)
    require_idle(run, _later(run, t), bool(_scores_of_later(run, t)))
    require_adapters(run, t)
    recipe = recipe or run.recipe
    check_changes(run, recipe, t)
    return Resumption(Run(StateAfter(run.state.root, run.state, t), recipe, run.info), run, t, proved)


def _later(run: Run, t: int) -> list[int]:
    """Iterations after t that have begun, latest first."""
    return [n for n in reversed(run.state.iterations()) if n > t]


def _of_iteration(state: StateDir, n: int) -> tuple[Path, Path]:
    """The folders of iteration n: its jobs, then its results."""
    folder = state.iteration(n).root
    return state.jobs / folder.name, folder


def _scores_of_later(run: Run, t: int) -> list[Path]:
    """All scores, if any may belong to iterations after t. Only committed iterations have scores."""
    if any(n > t for n in run.state.committed()):
        return [*scored_paths(run.state), run.state.jobs / "evals"]
    return []


class ResumePlan(msgspec.Struct, frozen=True):
    """jobs/returned.json: the SLURM job whose driver last rolled back, to iteration t."""

    job: str
    t: int


def has_resumed(state: StateDir, t: int) -> bool:
    """Whether this process is a requeued SLURM job that has already rolled back to iteration t: --resume applies once, not after each requeue."""
    path = state.jobs / "returned.json"
    if slurm_restarts() == 0 or not present(path):
        return False
    remedy = f"remove it, and this job goes back to iteration {t} once more"
    return files.read_json(path, ResumePlan, remedy) == ResumePlan(os.environ.get("SLURM_JOB_ID", ""), t)


@dataclass(frozen=True)
class Fork(Opening):
    """A new run in the folder `target` that shares the iterations of `parent` up to t."""

    run: Run
    target: StateDir
    parent: Run
    t: int

    def carry_out(self, say: Callable[[str], None]) -> Run:
        source, target, run = self.parent.state, self.target, Run(self.target, self.run.recipe, self.run.info)
        own = _own_files(run, source) if self.t == 0 else {}
        for n in range(self.t + 1):
            _copy_iteration(source.iteration(n), target.iteration(n), own)
        files.write_bytes(target.instructions, files.read_bytes(source.instructions))
        if run.info.lessons_sha256:
            files.write_bytes(target.sft_data, files.read_bytes(source.sft_data))
        if run.info.gold_sha256:
            files.write_bytes(target.gold, files.read_bytes(source.gold))
        copy_accesses(source, target)
        removed, _ = split_after(read_pruned(source), source, self.t)
        if removed.files:
            files.write_json(pruned_file(target), removed)
        run.freeze()
        run.save()
        return run


def prepare_fork(parent: Run, t: int, target: StateDir, recipe: Recipe | None) -> Fork:
    """Fork `parent` after iteration t into `target`, to continue with `recipe` (None: the parent's).

    The recipe may differ in anything but the pool and the data. Raises SpartaError where it cannot branch there.
    """
    require_frozen_recipe(parent)
    require_committed(parent, t)
    recipe = recipe or parent.recipe
    _require_same_pool(parent, recipe)
    _require_suitable_method(parent, recipe, t)
    _require_empty(target, t)
    check_state(parent, upto=t)
    require_adapters(parent, t)
    check_changes(parent, recipe, t)
    info = msgspec.structs.replace(
        Run.describe(recipe),
        # A fork of the initial pool plays every iteration by its own rules.
        genesis=parent.info.genesis if t > 0 else recipe.hash,
        instructions_sha256=parent.info.instructions_sha256,
        lessons_sha256=parent.info.lessons_sha256,
        gold_sha256=parent.info.gold_sha256,
        forked_from=parent.info.origin(t),
        day=parent.day.isoformat(),
    )
    return Fork(Run(StateAfter(target.root, parent.state, t), recipe, info), target, parent, t)


def is_fork_of(run: Run, parent: Run, t: int) -> bool:
    """Whether `run` is a fork of `parent` after iteration t."""
    return run.info.forked_from == parent.info.origin(t)


def _require_empty(target: StateDir, t: int) -> None:
    """Raises SpartaError where `target` is in use; leftovers of a fork from iteration t that was killed early are allowed."""
    if not present(target.run_json):
        refuse_lost_run(target, upto=t)
    if present(target.run_json) or occupied(target, upto=t):
        raise SpartaError(f"{quoted('--fork', target.root)}: the folder is not empty, choose another")


def _own_files(run: Run, source: StateDir) -> dict[str, bytes]:
    """The files of iteration 0, by name, in which the fork `run` differs from the pool in `source`: standings by its own rules, manifest."""
    zero = source.iteration(0)
    manifest, standing = read_manifest(zero), files.encode_json(standings.initial(run))
    entry = FileEntry(len(standing), hashlib.sha256(standing).hexdigest())
    own = msgspec.structs.replace(
        manifest, parent=run.info.genesis, files={**manifest.files, zero.standing.name: entry}
    )
    return {zero.standing.name: standing, zero.manifest.name: files.encode_json(own)}


def _require_same_pool(parent: Run, recipe: Recipe) -> None:
    new, old = recipe.identity(), parent.recipe.identity()
    if any(new[part] != old[part] for part in ("pool", "data")):
        raise SpartaError(
            "a fork keeps the pool and the data of its parent: leave both as they are, or start a new run"
        )


def _require_suitable_method(parent: Run, recipe: Recipe, t: int) -> None:
    """Raises SpartaError if the method of `recipe` cannot run it, or differs from the method of the shared iterations."""
    method = method_of(recipe)
    method.check(recipe)
    if not parent.info.gold_sha256 and method.gold(recipe):
        raise SpartaError(
            f"{parent.state.root} has no gold answers, which the method {method.name} needs: begin a new run"
        )
    if t > 0 and recipe.method != parent.recipe.method:
        raise SpartaError(
            f"a fork from iteration {t} must keep the method of its parent, {parent.recipe.method}: to use {recipe.method}, fork from the initial pool "
            f"({quoted('--resume', parent.iteration(0).root)}) or begin a new run"
        )


def _copy_iteration(source: IterationDir, target: IterationDir, own: Mapping[str, bytes]) -> None:
    """Copy `source` to `target` atomically, with `own` replacing files of the same name. A copy left by an earlier launch is kept."""

    def fill(folder: Path) -> None:
        files.copy_tree(source.root, folder)
        for name, content in own.items():
            (folder / name).write_bytes(content)

    files.put_tree(target.root, fill)
    with files.os_errors_named(target.root):
        expected = own.get(source.manifest.name) or files.read_bytes(source.manifest)
        if not present(target.manifest) or files.read_bytes(target.manifest) != expected:
            raise SpartaError(
                f"{target.root} exists and is not the copy of {source.root} that this fork needs: choose another folder for --fork"
            )


def require_idle(run: Run, iterations: Sequence[int], scores: bool) -> None:
    """Raises SpartaError where tasks of `iterations` still run: they would write into the iterations that replace these. scores: check tasks
    that score checkpoints, too.
    """
    for t in iterations:
        for phase in with_alternatives(run, phases_of(run.recipe, t), t):
            if _is_active(run, AttemptDir(run, phase, t)):
                raise SpartaError(
                    f"tasks of {phase.name} of iteration {t} are still running: cancel them with --cancel, or launch without --resume "
                    "to wait for them"
                )
    if scores:
        _require_no_scoring(run)


def _require_no_scoring(run: Run) -> None:
    """Raises SpartaError where checkpoints are being scored: their scores would mix with those of the iterations that replace them."""
    for attempts in attempts_below(run, run.state.jobs / "evals"):
        if _is_active(run, attempts):
            raise SpartaError(
                f"tasks that {attempts.phase.title} are still running: cancel them with --cancel, or wait for them with {suggested('evaluate', run.state.root)}"
            )


def _is_active(run: Run, attempts: AttemptDir) -> bool:
    """Whether tasks of these attempts run, or may still start."""
    for name in LAUNCHERS:
        launcher = launcher_named(name, run)
        mine = [attempt for attempt in attempts.all() if attempt.cluster == name]
        if launcher.has_unassigned_jobs(attempts) or any(
            launcher.running(attempts, attempt) for attempt in mine
        ):
            return True
    return False


def require_committed(run: Run, t: int) -> None:
    committed = run.state.committed()
    if not committed:
        raise SpartaError(
            f"{run.state.root} has no pool yet, so there is nothing to resume or to branch from: launch without --resume to continue where it "
            "stopped"
        )
    if t not in committed:
        raise SpartaError(
            f"iteration {t} of {run.state.root} is not committed (committed: {_ranges(committed)}): resume from one of these, "
            "or launch without --resume to continue where the run stopped"
        )


def _ranges(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else ", ".join(map(str, numbers)) or "none"
