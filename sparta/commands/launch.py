"""A launch: from what a person asked for to a run that is complete, continued or branched."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
from sparta.cluster.gpu_time import measure
from sparta.cluster.gpus import visible_gpus
from sparta.cluster.launcher import Launcher
from sparta.cluster.registry import launcher_for
from sparta.cluster.slurm import detached
from sparta.cluster.slurm.launcher import Slurm
from sparta.commands import launch_tables
from sparta.commands.begin import Opening
from sparta.commands.cancel import cancel_all, end_drivers
from sparta.commands.launch_request import LaunchRequest, last_of, recipe_of, resolve, state_of
from sparta.commands.slurm_scripts import show_scripts
from sparta.engines.factory import close_engine
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.names import DEFAULT_STATE, quoted, suggested
from sparta.pool.gpu_memory import estimates
from sparta.pool.hub_download import fetch
from sparta.screen import Screen
from sparta.store import files
from sparta.store.cleanup import clear_abandoned
from sparta.store.disk import in_words, present
from sparta.store.failure import forget_failure, note_failure
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run
from sparta.store.stats import FEW_PAIRS

_opened: Path | None = None
"""The state whose run this process has opened as it was asked to: all that was asked for is on disk then."""


def launch(asked: LaunchRequest, screen: Screen) -> None:
    """Do what was asked for. Raises SpartaError; what is done stays, and the same command goes on from there.

    What is refused before anything is submitted leaves nothing behind: the state directory is not touched until all checks are passed.
    """
    # Asked to go, by a person or by SLURM: like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    global _opened
    _opened, state = None, state_of(asked)
    if asked.cancel:
        _cancel(state, screen)
        return
    if asked.dry_run:
        _show_dry_run(asked, resolve(asked, screen), screen)
        return
    lock = RunLock(state, screen.say)
    lock.refuse_if_held()
    seen, opening = _look_of(state), resolve(asked, screen)
    with lock:
        clear_abandoned(state)
        if _look_of(state) != seen:
            # Another launch had the run in between.
            opening = resolve(asked, screen)
        try:
            _make(asked, opening, screen, lock)
        except Exception as error:
            if isinstance(error, OSError):
                said = str(in_words(error, state.root))
            else:
                said = str(error) if isinstance(error, SpartaError) else f"{type(error).__name__}: {error}"
            # On a full disk, say, the error itself tells more than that this could not be written.
            with suppress(SpartaError):
                note_failure(state, said)
            raise
        finally:
            close_engine()


def _look_of(state: StateDir) -> object:
    """What tells whether another launch has had the run since: its files at the top, and its iterations."""
    whole = (
        files.read_bytes(path) if present(path) else None for path in (state.run_json, state.recipe_yaml)
    )
    return (*whole, state.iterations(), state.committed())


def _make(asked: LaunchRequest, opening: Opening, screen: Screen, lock: RunLock) -> None:
    """Open the run and make what is left of it, here or by the jobs that are submitted."""
    global _opened
    run, last = opening.carry_out(screen.say), last_of(asked, opening.run)
    _opened = run.state.root
    forget_failure(run.state)
    if _nothing_left(run, last, screen):
        detached.withdraw_stragglers(run)
    elif asked.detach:
        _detach(run, last, screen, lock)
    else:
        _drive(run, last, screen, lock)


def fetch_models(asked: LaunchRequest, update: bool, screen: Screen) -> None:
    """Fetch what the recipe that was asked for names `hub:...`: the frozen one where there is a run already and none was named."""
    fetch(recipe_of(asked, screen), update, screen)


def command_to_continue(asked: LaunchRequest) -> str:
    """What to type after an interrupt: where the run is, once it was opened as it was asked for; before that all of it over again."""
    settings: Sequence[str] = ()
    options: dict[str, object] = {}
    if _opened is not None:
        options["--state"] = None if _opened == DEFAULT_STATE else _opened
    else:
        settings = asked.settings
        options = {
            "--iters": asked.iterations,
            "--recipe": asked.recipe,
            "--state": asked.state,
            "--cluster": asked.cluster,
            "--profile": asked.profile,
            "--resume": asked.resume,
            "--fork": asked.fork,
        }
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    given += [part for setting in settings for part in ("--set", setting)]
    flags = (("--detach", asked.detach), ("--dry-run", asked.dry_run), ("--cancel", asked.cancel))
    given += [name for name, wanted in flags if wanted]
    return suggested("init_pool" if asked.pool_only else "launch", *given)


def _drive(run: Run, last: int, screen: Screen, lock: RunLock) -> None:
    launcher, first = launcher_for(run), run.state.next_iteration()
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    detached.withdraw_unfinished(run)
    detached.release_held(run)
    driver = Driver(run, launcher, screen, lock.check)
    for t in range(first, last + 1):
        phases = phases_of(run.recipe, t)
        driver.iterate(phases, t)
        measure(run, phases, t)
        launch_tables.show_iteration(screen.console, run, t)
    detached.withdraw_stragglers(run)
    if last == 0:
        _tell_of_pool(run, screen)
        return
    screen.say(f"Done: {last} iterations.")
    if few := [str(t) for t in range(1, last + 1) if launch_tables.has_few_pairs(run, t)]:
        screen.say(
            f"warning: fewer than {100 * FEW_PAIRS:.0f} % of the combats made pairs in iteration{'s' * (len(few) > 1)} {', '.join(few)}: what was "
            "trained there has hardly learned anything"
        )
    for what, path in (
        ("last pool", run.iteration(last).adapters),
        ("standing", run.iteration(last).standing),
        ("preference pairs", run.iteration(last).preferences),
    ):
        screen.say(f"  {what:18}{path}")
    if run.recipe.scored_on:
        screen.say(f"  {'scores':18}{suggested('evaluate', run.state.root)}")


def _tell_of_pool(run: Run, screen: Screen) -> None:
    """Where the initial pool is, and what to do with it."""
    where = () if run.state.root == DEFAULT_STATE else ("--state", run.state.root)
    screen.say(
        f"The initial pool is there: {len(run.models)} models, adapters in {run.iteration(0).adapters}.\n"
        f"  play with it      {suggested('launch', *where)}"
    )


def _nothing_left(run: Run, last: int, screen: Screen) -> bool:
    """Whether all iterations up to `last` are committed; says so."""
    done = run.state.next_iteration() - 1
    if done < last:
        return False
    if last == 0:
        screen.say(f"The pool of {run.state.root} is made already; nothing to do.")
        _tell_of_pool(run, screen)
        return True
    screen.say(
        f"All {done} iterations of {run.state.root} are committed; nothing to do (for more: {quoted('--iters', done + 3)})."
    )
    return True


def _detach(run: Run, last: int, screen: Screen, lock: RunLock) -> None:
    """Submit what is left of the run up to iteration `last` as one chain of jobs and leave."""
    launcher, first = launcher_for(run), run.state.next_iteration()
    assert isinstance(launcher, Slurm), "every other launcher was refused with --detach"
    detached.withdraw_unfinished(run)
    if _goes_on_by_itself(run, first, last, launcher, screen):
        return
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    driver = Driver(run, launcher, screen, lock.check)
    for phase in phases_of(run.recipe, first):
        driver.settle(AttemptDir(run, phase, first))
    first = _light_steps(run, driver, first, last)
    if first > last:
        return
    links = detached.links_from(run, first, last, launcher.most)
    lock.check()
    made = detached.submit_chain(run, launcher, links, last)
    jobs = [job for _, ids in made.links for job in ids]
    screen.say(
        f"Submitted {len(made.links)} jobs that depend on each other, {jobs[0]} to {jobs[-1]}: this run goes on without you.\n"
        f"  look in on it    {suggested('status', run.state.root)}\n"
        f"  end it           {suggested('launch', '--state', run.state.root, '--cancel')}"
    )


def _goes_on_by_itself(run: Run, first: int, last: int, launcher: Slurm, screen: Screen) -> bool:
    """Whether the chain of an earlier detached launch is in SLURM still, and whole; says so. What is left of a broken one is ended."""
    before = detached.latest_chain(run)
    if before is None:
        return False
    known = detached.jobs_in_slurm(run)
    if not known and before.last >= first:
        # One empty answer may be wrong, and a second chain beside a living one would do its work twice.
        time.sleep(2 * launcher.profile.poll_seconds)
        known = detached.jobs_in_slurm(run)
    if not detached.goes_on(before, known):
        detached.withdraw_rest(before, known)
        return False
    detached.release(before, known)
    more = " Iterations after it are for the same command, when it is done." * (before.last < last)
    screen.say(
        f"{sum(task.live for task in known)} jobs of this run are in SLURM already, up to iteration {before.last}: nothing was "
        f"submitted. See them with {suggested('status', run.state.root)}, end them with --cancel.{more}"
    )
    return True


def _light_steps(run: Run, driver: Driver, first: int, last: int) -> int:
    """Do here what takes a moment and comes next; the iteration that is to go on. No job needs to wait in a queue for it."""
    for t in range(first, last + 1):
        phases = phases_of(run.recipe, t)
        for phase in phases:
            if not phase.light:
                if phase.missing(run, t):
                    return t
            else:
                driver.complete(phase, t)
        measure(run, phases, t)
    return last + 1


def _cancel(state: StateDir, screen: Screen) -> None:
    """End the tasks and jobs of the run, and only those; what they have finished stays."""
    run = Run.open(state)  # refused before anything is written where there is no run
    end_drivers(state, screen.say)
    with RunLock(state, screen.say):
        clear_abandoned(state)
        ended = cancel_all(run)
    if ended:
        screen.say(
            f"Ended {ended} task{'s' * (ended != 1)} of {state.root}; go on with {suggested('launch', '--state', state.root)}"
        )
    else:
        screen.say(f"{state.root} has no task queued or running.")


def _show_dry_run(asked: LaunchRequest, opening: Opening, screen: Screen) -> None:
    """What a launch would do; everything that it would refuse has been refused."""
    run, first, last = opening.run, opening.first, last_of(asked, opening.run)
    launcher = launcher_for(run)
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    if asked.pool_only or first <= last:
        _tell_of_memory(run, launcher, asked.pool_only, screen)
    if isinstance(launcher, Slurm):
        for t in range(first, min(last, max(first, 1)) + 1):
            show_scripts(run, launcher, t, screen.console)
    screen.say("Dry run: the recipe, the pool and the instructions are in order; nothing was started.")


def _tell_of_memory(run: Run, launcher: Launcher, whole: bool, screen: Screen) -> None:
    """What the trainings of `run` are reckoned to take: a line each, where they come to GPUs; always and with the arithmetic if `whole`."""
    if whole:
        for line in (line for estimate in estimates(run) for line in estimate.lines):
            screen.say(line)
    elif run.recipe.engine.device != "cpu" and (isinstance(launcher, Slurm) or visible_gpus()):
        for estimate in estimates(run):
            screen.say(
                f"{estimate.total} of GPU memory, by the arithmetic that {suggested('init_pool', '--dry-run')} shows"
            )
