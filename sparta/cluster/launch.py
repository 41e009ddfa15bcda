"""A launch: from what a person asked for to a run that is complete, continued or branched."""

import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparta.cluster import console, lifecycle
from sparta.cluster.base import Launcher
from sparta.cluster.driver import Driver
from sparta.cluster.failure import forget_failure, note_failure
from sparta.cluster.launchers import launcher_named
from sparta.cluster.local import visible_gpus
from sparta.cluster.measure import measure
from sparta.engines.factory import close_engine
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.recipe import Recipe
from sparta.recipe_files import adjust, load
from sparta.store.layout import StateDir, parse_iteration
from sparta.store.lock import RunLock
from sparta.store.run import Run

DEFAULT_STATE = Path("state")
DEFAULT_RECIPE = "toy"
ClusterKind = Literal["auto", "inline", "local"]


@dataclass(frozen=True)
class Asked:
    """What a person typed. None: not given."""

    recipe: str | None = None
    state: Path | None = None
    iterations: int | None = None
    settings: tuple[str, ...] = ()
    cluster: ClusterKind | None = None
    resume: Path | None = None
    fork: Path | None = None
    dry_run: bool = False


def launch(asked: Asked, screen: console.Screen) -> None:
    """Do what was asked for. Raises SpartaError; what is done stays, and the same command goes on from there."""
    # Asked to go, by a person or by SLURM: like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = _state(asked)
    if asked.dry_run:
        _rehearse(asked, state, screen)
        return
    # Refused before the state directory is touched.
    recipe = _recipe(asked, state)
    with RunLock(state, screen.say) as lock:
        try:
            run = _open(asked, state, recipe)
            forget_failure(state)
            _drive(run, screen, lock)
        except Exception as error:
            said = str(error) if isinstance(error, SpartaError) else f"{type(error).__name__}: {error}"
            # On a full disk, say, the error itself tells more than that this could not be written.
            with suppress(SpartaError):
                note_failure(state, said)
            raise
        finally:
            close_engine()


def command_to_continue(asked: Asked) -> str:
    """What to type to go on: where the run is; all over again where there is none yet."""
    state = _state(asked)
    if state.run_json.is_file():
        options: dict[str, object] = {"--state": None if state.root == DEFAULT_STATE else state.root}
        settings: tuple[str, ...] = ()
    else:
        settings = asked.settings
        options = {
            "--iters": asked.iterations,
            "--recipe": asked.recipe,
            "--state": asked.state,
            "--cluster": asked.cluster,
            "--resume": asked.resume,
            "--fork": asked.fork,
        }
    given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    given += [part for setting in settings for part in ("--set", setting)]
    return shlex.join(["python", "jobs/launch.py", *given])


def launcher_for(run: Run) -> Launcher:
    """Where the recipe wants its tasks to run; auto: a process for each GPU where there are several, else this process."""
    kind = run.recipe.cluster.kind
    if kind == "auto":
        kind = "local" if len(visible_gpus()) > 1 else "inline"
    return launcher_named(kind, run)


def _state(asked: Asked) -> StateDir:
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
                f"--resume {asked.resume} lies in {state.root}, not in --state {asked.state}: leave --state out"
            )
        return state
    return StateDir(asked.state or DEFAULT_STATE)


def _recipe(asked: Asked, state: StateDir) -> Recipe | None:
    """The recipe that was asked for; None where the frozen one is to be used as it is."""
    settings = list(asked.settings)
    origin = parse_iteration(asked.resume)[0] if asked.resume else state
    if asked.iterations is not None:
        # What is committed stays, whatever is asked for.
        done = 0 if asked.resume else origin.last_committed() or 0
        settings.append(
            f"iterations={max(asked.iterations, done) if asked.iterations > 0 else asked.iterations}"
        )
    if asked.cluster is not None:
        settings.append(f"cluster.kind={asked.cluster}")
    if asked.recipe is None and origin.run_json.is_file():
        return adjust(Run.open(origin).recipe, settings) if settings else None
    return load(asked.recipe or DEFAULT_RECIPE, settings)


def _open(asked: Asked, state: StateDir, recipe: Recipe | None) -> Run:
    if asked.resume is None:
        return lifecycle.begin_or_continue(state, recipe)
    source, t = parse_iteration(asked.resume)
    if asked.fork is not None:
        return lifecycle.fork(source, t, state, recipe)
    lifecycle.require_same_recipe(Run.open(source), recipe)
    lifecycle.go_back(source, t)
    return lifecycle.begin_or_continue(state, recipe)


def _drive(run: Run, screen: console.Screen, lock: RunLock) -> None:
    phases, launcher = phases_of(run.recipe.method), launcher_for(run)
    first, last = (run.state.last_committed() or 0) + 1, run.recipe.iterations
    if first > last:
        screen.say(
            f"All {first - 1} iterations of {run.state.root} are committed; nothing to do (for more: --iters {first + 3})."
        )
        return
    console.show_plan(screen.console, run, first, last, launcher.name, launcher.tasks)
    driver = Driver(run, launcher, screen, lock.check)
    for t in range(first, last + 1):
        driver.iterate(phases, t)
        measure(run, phases, t)
        console.show_iteration(screen.console, run, t)
    screen.say(f"Done: {last} iterations.")
    for what, path in (
        ("last pool", run.iteration(last).adapters),
        ("standing", run.iteration(last).standing),
        ("preference pairs", run.iteration(last).preferences),
    ):
        screen.say(f"  {what:18}{path}")
    if run.recipe.evaluation.task or run.recipe.data.task:
        screen.say(f"  {'scores':18}python jobs/evaluate.py {run.state.root}")


def _rehearse(asked: Asked, state: StateDir, screen: console.Screen) -> None:
    """Everything that can be checked without starting: recipe, pool, instructions, state."""
    recipe = _recipe(asked, state)
    if asked.resume is not None:
        source, done = parse_iteration(asked.resume)
        run = lifecycle.rehearse_return(source, done, recipe, branch=asked.fork is not None)
    elif recipe is not None and not state.run_json.is_file():
        run, done = lifecycle.rehearse(state, recipe), 0
    else:
        run = Run.open(state)
        lifecycle.require_same_recipe(run, recipe)
        lifecycle.check_state(run)
        run.recipe, done = recipe or run.recipe, run.state.last_committed() or 0
    launcher = launcher_for(run)
    console.show_plan(screen.console, run, done + 1, run.recipe.iterations, launcher.name, launcher.tasks)
    screen.say("Dry run: the recipe, the pool and the instructions are in order; nothing was started.")
