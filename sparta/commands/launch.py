"""Carrying out a launch request: start, continue, roll back, branch, detach, cancel or dry-run."""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sparta.cluster.account import measure
from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
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
from sparta.errors import NotHere, SpartaError
from sparta.methods.registry import method_of, phases_of
from sparta.names import DEFAULT_STATE, quoted, suggested
from sparta.pool.gpu_memory import estimates
from sparta.pool.hub_download import fetch, wanted_by
from sparta.pool.memory_beforehand import memory_beforehand
from sparta.screen import Screen
from sparta.store import files
from sparta.store.cleanup import clear_abandoned
from sparta.store.disk import in_words, present
from sparta.store.failure import forget_failure, note_failure
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run
from sparta.store.stats import FEW_PAIRS
from sparta.studies.estimate import planned
from sparta.tasks.registry import task_named

_opened: Path | None = None
"""The state whose run this process has opened as requested: from then on the request is on disk."""


def launch(request: LaunchRequest, screen: Screen) -> None:
    """Carry out `request`. Raises SpartaError; finished work stays on disk, and the same command continues from there.

    The state directory is not touched until all checks have passed, so a refused launch leaves nothing behind.
    """
    # A stop request from a person or from SLURM: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    global _opened
    _opened, state = None, state_of(request)
    if request.cancel:
        _cancel(state, screen)
        return
    if request.dry_run:
        try:
            opening = resolve(request, screen)
        except NotHere as missing:
            _show_plan_of_absent(request, missing, screen)
        _show_dry_run(request, opening, screen)
        return
    lock = RunLock(state, screen.say)
    lock.refuse_if_held()
    before, opening = _fingerprint(state), resolve(request, screen)
    with lock:
        clear_abandoned(state)
        if _fingerprint(state) != before:
            # Another launch changed the run before this one had the lock.
            opening = resolve(request, screen)
        try:
            _execute(request, opening, screen, lock)
        except Exception as error:
            if isinstance(error, OSError):
                message = str(in_words(error, state.root))
            else:
                message = str(error) if isinstance(error, SpartaError) else f"{type(error).__name__}: {error}"
            # Where the disk is full the note fails as well; the original error is the one to report.
            with suppress(SpartaError):
                note_failure(state, message)
            raise
        finally:
            close_engine()


def _fingerprint(state: StateDir) -> object:
    """Changes when another launch changes the run: its recipe and run.json, and its iterations."""
    contents = (
        files.read_bytes(path) if present(path) else None for path in (state.run_json, state.recipe_yaml)
    )
    return (*contents, state.iterations(), state.committed())


def _execute(request: LaunchRequest, opening: Opening, screen: Screen, lock: RunLock) -> None:
    """Open the run and do the rest of its work, from here or as one chain of submitted jobs."""
    global _opened
    run, last = opening.carry_out(screen.say), last_of(request, opening.run)
    _opened = run.state.root
    forget_failure(run.state)
    if _nothing_left(run, last, screen):
        detached.cancel_orphans(run)
    elif request.detach:
        _detach(run, last, screen, lock)
    else:
        _drive(run, last, screen, lock)


def fetch_models(request: LaunchRequest, update: bool, screen: Screen) -> None:
    """Download the models that the requested recipe names `hub:...`. Without --recipe, an existing run's own recipe is used."""
    fetch(recipe_of(request, screen), update, screen)


def command_to_continue(request: LaunchRequest) -> str:
    """What to type after an interrupt: the run's state, once it was opened as requested; before that the whole command again."""
    settings: Sequence[str] = ()
    options: dict[str, object] = {}
    if _opened is not None:
        options["--state"] = None if _opened == DEFAULT_STATE else _opened
    else:
        settings = request.settings
        options = {
            "--iters": request.iterations,
            "--recipe": request.recipe,
            "--state": request.state,
            "--cluster": request.cluster,
            "--profile": request.profile,
            "--resume": request.resume,
            "--fork": request.fork,
        }
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    given += [part for setting in settings for part in ("--set", setting)]
    flags = (("--detach", request.detach), ("--dry-run", request.dry_run), ("--cancel", request.cancel))
    given += [name for name, is_set in flags if is_set]
    return suggested("init_pool" if request.pool_only else "launch", *given)


def _drive(run: Run, last: int, screen: Screen, lock: RunLock) -> None:
    launcher, first = launcher_for(run), run.state.next_iteration()
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    detached.cancel_unfinished(run)
    detached.release_held(run)
    driver = Driver(run, launcher, screen, lock.check)
    for t in range(first, last + 1):
        phases = phases_of(run.recipe, t)
        driver.iterate(phases, t)
        measure(run, phases, t)
        launch_tables.show_iteration(screen.console, run, t)
    detached.cancel_orphans(run)
    if last == 0:
        _show_pool(run, screen)
        return
    screen.say(f"Done: {last} iterations.")
    if few := [str(t) for t in range(1, last + 1) if launch_tables.has_few_pairs(run, t)]:
        screen.say(
            f"warning: fewer than {100 * FEW_PAIRS:.0f} % of the {method_of(run.recipe).unit} made pairs in iteration{'s' * (len(few) > 1)} {', '.join(few)}: the "
            "training there had next to no effect"
        )
    for what, path in (
        ("last pool", run.iteration(last).adapters),
        ("standing", run.iteration(last).standing),
        ("preference pairs", run.iteration(last).preferences),
    ):
        screen.say(f"  {what:18}{path}")
    if run.recipe.scored_on:
        screen.say(f"  {'scores':18}{suggested('evaluate', run.state.root)}")
        screen.say(f"  {'the best model':18}{suggested('export', run.state.root)} (after that)")


def _show_pool(run: Run, screen: Screen) -> None:
    """Print where the initial pool is and what to do with it."""
    where = () if run.state.root == DEFAULT_STATE else ("--state", run.state.root)
    screen.say(
        f"The initial pool is ready: {len(run.models)} models, adapters in {run.iteration(0).adapters}.\n"
        f"  run iterations    {suggested('launch', *where)}"
    )


def _nothing_left(run: Run, last: int, screen: Screen) -> bool:
    """Whether all iterations up to `last` are committed; prints a message if they are."""
    done = run.state.next_iteration() - 1
    if done < last:
        return False
    if last == 0:
        screen.say(f"The pool of {run.state.root} exists already; nothing to do.")
        _show_pool(run, screen)
        return True
    screen.say(
        f"All {done} iterations of {run.state.root} are committed; nothing to do (to run more: {quoted('--iters', done + 3)})."
    )
    return True


def _detach(run: Run, last: int, screen: Screen, lock: RunLock) -> None:
    """Submit the rest of the run up to iteration `last` as one chain of jobs, and return."""
    launcher, first = launcher_for(run), run.state.next_iteration()
    assert isinstance(launcher, Slurm), "every other launcher was refused with --detach"
    detached.cancel_unfinished(run)
    if _chain_is_running(run, first, last, launcher, screen):
        return
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    driver = Driver(run, launcher, screen, lock.check)
    for phase in phases_of(run.recipe, first):
        driver.settle(AttemptDir(run, phase, first))
    first = _run_light_steps(run, driver, first, last)
    if first > last:
        return
    links = detached.links_from(run, first, last, launcher.tasks)
    lock.check()
    made = detached.submit_chain(run, launcher, links, last)
    jobs = [job for _, ids in made.links for job in ids]
    screen.say(
        f"Submitted {len(made.links)} jobs that depend on each other, {jobs[0]} to {jobs[-1]}: this run continues without a driver.\n"
        f"  check on it      {suggested('status', run.state.root)}\n"
        f"  cancel it        {suggested('launch', '--state', run.state.root, '--cancel')}"
    )


def _chain_is_running(run: Run, first: int, last: int, launcher: Slurm, screen: Screen) -> bool:
    """Whether an earlier detached launch still has its whole chain in SLURM; prints a message if so, cancels the rest of a broken chain."""
    before = detached.latest_chain(run)
    if before is None:
        return False
    known = detached.jobs_in_slurm(run)
    if not known and before.last >= first:
        # One empty answer of squeue may be wrong, and a second chain would do the work of the first again.
        time.sleep(2 * launcher.profile.poll_seconds)
        known = detached.jobs_in_slurm(run)
    if not detached.is_intact(before, known):
        detached.cancel_rest(before, known)
        return False
    detached.release(before, known)
    more = " Run the same command again when it is done, for the iterations after it." * (before.last < last)
    screen.say(
        f"{sum(task.live for task in known)} jobs of this run are in SLURM already, up to iteration {before.last}: nothing was "
        f"submitted. See them with {suggested('status', run.state.root)}, cancel them with --cancel.{more}"
    )
    return True


def _run_light_steps(run: Run, driver: Driver, first: int, last: int) -> int:
    """Run the next steps that take only a moment here instead of queueing jobs for them. Returns the first iteration with work left."""
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
    """Cancel the tasks and jobs of this run; the rows that they have finished stay."""
    run = Run.open(state)  # before the lock, which writes
    end_drivers(state, screen.say)
    with RunLock(state, screen.say):
        clear_abandoned(state)
        ended = cancel_all(run)
    if ended:
        screen.say(
            f"Ended {ended} task{'s' * (ended != 1)} of {state.root}; continue with {suggested('launch', '--state', state.root)}"
        )
    else:
        screen.say(f"{state.root} has no task queued or running.")


def _show_dry_run(request: LaunchRequest, opening: Opening, screen: Screen) -> None:
    """Print what a launch would do, after all its checks."""
    run, first, last = opening.run, opening.first, last_of(request, opening.run)
    launcher = launcher_for(run)
    launch_tables.show_plan(screen.console, run, first, last, launcher)
    if request.pool_only or first <= last:
        _show_memory(run, launcher, request.pool_only, screen)
    if isinstance(launcher, Slurm):
        for t in range(first, min(last, max(first, 1)) + 1):
            show_scripts(run, launcher, t, screen.console)
    screen.say("Dry run: the recipe, the pool and the instructions passed all checks; nothing was started.")


def _show_plan_of_absent(request: LaunchRequest, missing: NotHere, screen: Screen) -> NoReturn:
    """Print the plan of a new run whose models or data are not all on this machine, without the training of experts, and which are not.

    Raises SpartaError: `missing` at the end, because not everything was checked, or what is wrong with data that are here.
    """
    recipe = recipe_of(request, screen)
    with suppress(NotHere):
        # Data that are here and broken are not worth a download of models.
        task_named(recipe.data.task or "own", recipe.data).items("train", recipe.data)
    run = planned(recipe, state_of(request))
    launch_tables.show_plan(screen.console, run, 1, last_of(request, run), launcher_for(run), checked=False)
    for wanted in wanted_by(recipe):
        screen.say(f"{'here' if wanted.folder.is_dir() else 'not here'}: {wanted.reference}, {wanted.folder}")
    for line in memory_beforehand(recipe):
        screen.say(line)
    screen.say("The plan is an estimate, and the pool was not checked: something is not here yet.")
    raise missing


def _show_memory(run: Run, launcher: Launcher, full: bool, screen: Screen) -> None:
    """Print the estimated GPU memory of the trainings: one line each where GPUs are used; always, with the arithmetic, if `full`."""
    gib = launcher.profile.gpu_memory_gib if isinstance(launcher, Slurm) else None
    if full:
        for line in (line for estimate in estimates(run, gib) for line in estimate.lines):
            screen.say(line)
    elif isinstance(launcher, Slurm) or visible_gpus():
        for estimate in estimates(run, gib):
            screen.say(f"{estimate.total}; {suggested('init_pool', '--dry-run')} shows the arithmetic")
