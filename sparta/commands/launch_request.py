"""What a person requests of a launch, and how that opens a run. Requests that cannot be met are refused before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.cluster.registry import at_rates_of, launcher_for, settings_for
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.commands.begin import Opening, prepare_begin, prepare_continue
from sparta.commands.resume import has_resumed, is_fork_of, prepare_fork, prepare_resume
from sparta.errors import SpartaError
from sparta.evaluation.derived_pool import resolved
from sparta.methods.budget import budgeted
from sparta.methods.registry import phases_of
from sparta.names import DEFAULT_RECIPE, DEFAULT_STATE, ClusterKind, quoted
from sparta.phases.base import Phase
from sparta.recipes.load import adjust, load
from sparta.recipes.schema import Recipe
from sparta.screen import Screen
from sparta.store.disk import present
from sparta.store.layout import StateDir, parse_iteration
from sparta.store.run import Run


@dataclass(frozen=True)
class LaunchRequest:
    """What a person typed. None: not given."""

    recipe: str | None = None
    state: Path | None = None
    iterations: int | None = None
    settings: Sequence[str] = ()
    cluster: ClusterKind | None = None
    profile: str | None = None
    resume: Path | None = None
    fork: Path | None = None
    dry_run: bool = False
    detach: bool = False
    cancel: bool = False
    pool_only: bool = False
    """Stop after the initial pool: what jobs/init_pool.py does."""


def state_of(request: LaunchRequest) -> StateDir:
    """The state directory of the requested run. Raises SpartaError where options contradict each other."""
    if request.fork is not None:
        if request.resume is None:
            raise SpartaError("--fork needs the iteration to branch from: add --resume state/iter_05")
        if request.state is not None:
            raise SpartaError("--fork names the new run's state directory itself: leave --state out")
        return StateDir(request.fork)
    if request.resume is not None:
        state, _ = parse_iteration(request.resume)
        if request.state is not None and request.state.resolve() != state.root.resolve():
            raise SpartaError(
                f"{quoted('--resume', request.resume)} lies in {state.root}, not in {quoted('--state', request.state)}: leave --state out"
            )
        return state
    return StateDir(request.state or DEFAULT_STATE)


def resolve(request: LaunchRequest, screen: Screen) -> Opening:
    """How the requested run is opened: as a new run, continued, rolled back or branched.

    An existing run is opened once, and its committed iterations are verified once. Writes nothing. Raises SpartaError for everything that a
    launch refuses before it submits anything.
    """
    opening = _opening(request, screen)
    _require_startable(request, opening)
    return opening


def recipe_of(request: LaunchRequest, screen: Screen) -> Recipe:
    """The requested recipe, with a derived pool resolved; an existing run's own recipe where none was named."""
    state = state_of(request)
    if present(state.run_json):
        run = Run.open(state)
        return _recipe(request, run, _done(run), screen) or run.recipe
    return _resolved(
        at_rates_of(request.profile, load(request.recipe or DEFAULT_RECIPE, _settings(request))), screen
    )


def _opening(request: LaunchRequest, screen: Screen) -> Opening:
    state = state_of(request)
    if request.resume is not None:
        source, t = parse_iteration(request.resume)
        run = Run.open(source)
        if request.fork is not None:
            return _branch(request, run, t, state, screen)
        if has_resumed(source, t):
            return prepare_continue(run, _recipe(request, run, _done(run), screen))
        return prepare_resume(run, t, _recipe(request, run, t, screen))
    if present(state.run_json):
        run = Run.open(state)
        return prepare_continue(run, _recipe(request, run, _done(run), screen))
    return prepare_begin(state, recipe_of(request, screen), screen.say)


def _branch(request: LaunchRequest, parent: Run, t: int, target: StateDir, screen: Screen) -> Opening:
    """Fork `parent` into `target`, or continue that fork if it exists."""
    if present(target.run_json) and is_fork_of(fork := Run.open(target), parent, t):
        return prepare_continue(fork, _recipe(request, parent, _done(fork), screen) or parent.recipe)
    return prepare_fork(parent, t, target, _recipe(request, parent, t, screen))


def _done(run: Run) -> int:
    return run.state.last_committed() or 0


def _recipe(request: LaunchRequest, run: Run, done: int, screen: Screen) -> Recipe | None:
    """The requested recipe, with derived pool and budget resolved; None to use that of `run` unchanged. done: see `_settings`."""
    settings = _settings(request, done, None if request.fork else run.recipe)
    if request.recipe is not None:
        begun = run.recipe if request.fork is None else None
        return _resolved(load(request.recipe, settings, begun), screen)
    return _resolved(adjust(run.recipe, settings), screen) if settings else None


def _resolved(recipe: Recipe, screen: Screen) -> Recipe:
    """`recipe` with everything that it takes from other runs filled in: a derived pool, a budget. Reports both on `screen`."""
    return budgeted(resolved(recipe, screen.say), screen.say)


def _settings(request: LaunchRequest, done: int = 0, frozen: Recipe | None = None) -> list[str]:
    """Everything that the options change in a recipe.

    done: the last committed iteration; --iters never goes below it. frozen: the recipe of the run to continue.
    """
    iterations = []
    if request.iterations is not None:
        total = max(request.iterations, done) if request.iterations > 0 else request.iterations
        iterations.append(f"iterations={total}")
    return [*request.settings, *iterations, *settings_for(request.cluster, request.profile, frozen)]


def _require_startable(request: LaunchRequest, opening: Opening) -> None:
    """Raises SpartaError where the rest of the run cannot be started from here, or not as requested."""
    run, last = opening.run, last_of(request, opening.run)
    if opening.first > last:
        return
    launcher = launcher_for(run)
    if request.detach and not isinstance(launcher, Slurm):
        raise SpartaError(
            f"--detach needs SLURM, and this run uses the cluster {launcher.name}: add --profile, or leave --detach out"
        )
    # A dry run without SLURM still shows the scripts.
    if not (request.dry_run and isinstance(launcher, Slurm) and not cli.installed()):
        launcher.check(_phases(run, opening.first, last))


def last_of(request: LaunchRequest, run: Run) -> int:
    """The last requested iteration."""
    return 0 if request.pool_only else run.recipe.iterations


def _phases(run: Run, first: int, last: int) -> list[Phase]:
    """The phases of iterations `first` to `last`, each once."""
    return list(
        {phase.name: phase for t in range(first, last + 1) for phase in phases_of(run.recipe, t)}.values()
    )
