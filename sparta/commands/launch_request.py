"""What a launch is asked for, and what that comes to: refused before anything is written where it cannot be had."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.cluster.registry import launcher_for, settings_for
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
    """Stop when the initial pool is there: what jobs/init_pool.py asks for."""


def state_of(asked: LaunchRequest) -> StateDir:
    """Where the run is, or will be, that was asked for. Raises SpartaError where options contradict each other."""
    if asked.fork is not None:
        if asked.resume is None:
            raise SpartaError("--fork needs the iteration to branch from: add --resume state/iter_05")
        if asked.state is not None:
            raise SpartaError("--fork names the new run's state directory itself: leave --state out")
        return StateDir(asked.fork)
    if asked.resume is not None:
        state, _ = parse_iteration(asked.resume)
        if asked.state is not None and asked.state.resolve() != state.root.resolve():
            raise SpartaError(
                f"{quoted('--resume', asked.resume)} lies in {state.root}, not in {quoted('--state', asked.state)}: leave --state out"
            )
        return state
    return StateDir(asked.state or DEFAULT_STATE)


def resolve(asked: LaunchRequest, screen: Screen) -> Opening:
    """How the run is opened that was asked for: begun, continued, taken back or branched.

    A run that is there is opened once, and what it has committed is verified once. Writes nothing. Raises SpartaError for all that a launch
    refuses before it submits anything.
    """
    opening = _opening(asked, screen)
    _require_startable(asked, opening)
    return opening


def recipe_of(asked: LaunchRequest, screen: Screen) -> Recipe:
    """The recipe that was asked for, a derived pool resolved; the frozen one where there is a run already and none was named."""
    state = state_of(asked)
    if present(state.run_json):
        run = Run.open(state)
        return _recipe(asked, run, _done(run), screen) or run.recipe
    return _resolved(load(asked.recipe or DEFAULT_RECIPE, _settings(asked)), screen)


def _opening(asked: LaunchRequest, screen: Screen) -> Opening:
    state = state_of(asked)
    if asked.resume is not None:
        source, t = parse_iteration(asked.resume)
        run = Run.open(source)
        if asked.fork is not None:
            return _branch(asked, run, t, state, screen)
        if has_resumed(source, t):
            return prepare_continue(run, _recipe(asked, run, _done(run), screen))
        return prepare_resume(run, t, _recipe(asked, run, t, screen))
    if present(state.run_json):
        run = Run.open(state)
        return prepare_continue(run, _recipe(asked, run, _done(run), screen))
    return prepare_begin(state, recipe_of(asked, screen))


def _branch(asked: LaunchRequest, parent: Run, t: int, target: StateDir, screen: Screen) -> Opening:
    """The fork of `parent` in `target`; where it is there already, it is continued."""
    if present(target.run_json) and is_fork_of(there := Run.open(target), parent, t):
        return prepare_continue(there, _recipe(asked, parent, _done(there), screen) or parent.recipe)
    return prepare_fork(parent, t, target, _recipe(asked, parent, t, screen))


def _done(run: Run) -> int:
    return run.state.last_committed() or 0


def _recipe(asked: LaunchRequest, run: Run, done: int, screen: Screen) -> Recipe | None:
    """The recipe that was asked for, a derived pool resolved; None where that of `run` is to be used as it is. done: see `_settings`."""
    settings = _settings(asked, done, None if asked.fork else run.recipe)
    if asked.recipe is not None:
        begun = run.recipe if asked.fork is None else None
        return _resolved(load(asked.recipe, settings, begun), screen)
    return _resolved(adjust(run.recipe, settings), screen) if settings else None


def _resolved(recipe: Recipe, screen: Screen) -> Recipe:
    """`recipe` with all that it takes from other runs in it: a derived pool, a budget. Says what that is."""
    return budgeted(resolved(recipe, screen.say), screen.say)


def _settings(asked: LaunchRequest, done: int = 0, frozen: Recipe | None = None) -> list[str]:
    """All that the options change in a recipe.

    done: the last committed iteration; what is committed stays, whatever is asked for. frozen: the recipe of the run that is to go on.
    """
    iterations = []
    if asked.iterations is not None:
        wanted = max(asked.iterations, done) if asked.iterations > 0 else asked.iterations
        iterations.append(f"iterations={wanted}")
    return [*asked.settings, *iterations, *settings_for(asked.cluster, asked.profile, frozen)]


def _require_startable(asked: LaunchRequest, opening: Opening) -> None:
    """Raises SpartaError where what is left of the run could not be started from here, or not in the way that was asked for."""
    run, last = opening.run, last_of(asked, opening.run)
    if opening.first > last:
        return
    launcher = launcher_for(run)
    if asked.detach and not isinstance(launcher, Slurm):
        raise SpartaError(
            f"--detach leaves the run to SLURM, and this one runs {launcher.name}: add --profile, or leave --detach out"
        )
    # Where there is no SLURM a dry run shows what it would be given.
    if not (asked.dry_run and isinstance(launcher, Slurm) and not cli.installed()):
        launcher.check(_phases(run, opening.first, last))


def last_of(asked: LaunchRequest, run: Run) -> int:
    """The last iteration that was asked for."""
    return 0 if asked.pool_only else run.recipe.iterations


def _phases(run: Run, first: int, last: int) -> list[Phase]:
    """The phases of iterations `first` to `last`, each once."""
    return list(
        {phase.name: phase for t in range(first, last + 1) for phase in phases_of(run.recipe, t)}.values()
    )
