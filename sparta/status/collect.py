"""Where a run stands, read from its state alone: also while it runs, after a crash, and for somebody else's run.

Whether a SLURM job is queued or running only SLURM knows: squeue is asked once. Nothing is written and no engine is loaded.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from sparta.arena.reputation import Standing
from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.driver import last_lines
from sparta.cluster.gpu_time import GpuTime, gpu_time
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import SlurmUnavailable
from sparta.cluster.slurm.detached import Chain, latest_chain
from sparta.cluster.slurm.queue import Seen, ask
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.status.forecast import seconds_an_iteration
from sparta.status.phase_status import EndedTask, PhaseStatus, PhaseView
from sparta.store import files, standings
from sparta.store.failure import LaunchFailure, last_failure
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run
from sparta.store.stats import IterationStats

EXIT_CODES = {"done": 0, "failed": 1, "running": 3, "stopped": 3}


class IterationStatus(msgspec.Struct, frozen=True):
    t: int
    committed: bool
    phases: list[PhaseStatus]
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None


class Status(msgspec.Struct, frozen=True):
    """A run. state: done; failed (the last launch ended with an error, or a detached one lost a task); running (a driver holds the lock, or
    jobs go on in SLURM without one); stopped.

    detached: without a driver, what goes on in SLURM all the same. silence: why SLURM could not be asked; what is queued or running is then
    as the files last said. standing_after: an iteration; None while experts of the initial pool are trained. ended: the tasks that a failure is
    due to. gpu_seconds, gpu_idle: of all iterations together.
    """

    run_id: str
    recipe: str
    state: Literal["done", "failed", "running", "stopped"]
    iterations: list[IterationStatus]
    planned: int
    driver: str | None
    failure: LaunchFailure | None
    log: str | None
    seconds_left: float | None
    standing: dict[str, Standing]
    standing_after: int | None
    detached: str | None = None
    silence: str | None = None
    ended: list[EndedTask] = []
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]


def status_of(run: Run) -> Status:
    """The status of `run`."""
    committed = set(run.state.committed())
    if not committed and not run.recipe.pool.experts:
        raise SpartaError(
            f"{run.state.root} has no committed iteration, not even iter_00: restore it from a copy"
        )
    last = max(committed, default=None)
    # SLURM first, records after: a task that ends in between has then said so.
    seen = ask(run, committed)
    now = holder(run.state)
    driver = str(now.claim) if now and now.alive else None
    looks = [
        PhaseView(run, phase, t, t in committed, driver is not None, seen)
        for t in _iterations(run, seen)
        for phase in with_alternatives(run, phases_of(run.recipe, t), t)
    ]
    chain = latest_chain(run)
    detached = None if driver else _detached(chain, seen, looks)
    failure = None if driver else last_failure(run)
    ended, log = _ended(looks, chain, seen) if driver is None else ([], None)
    state: Literal["done", "failed", "running", "stopped"] = "stopped"
    if driver:
        state = "running"
    elif last is not None and last >= run.recipe.iterations:
        state = "done"
    elif detached and not (failure and seen.silence):
        state = "running"
    elif failure or ended:
        state = "failed"
    wrong = state == "failed" or (state == "running" and failure is not None)
    each = seconds_an_iteration(run)
    iterations, gpu = _by_iteration(run, looks)
    return Status(
        run_id=run.info.run_id,
        recipe=run.recipe.name,
        state=state,
        iterations=iterations,
        planned=run.recipe.iterations,
        driver=driver,
        failure=failure if wrong else None,
        log=(log or _failing_log(looks)) if wrong else None,
        seconds_left=None
        if each is None or state == "done"
        else each * (run.recipe.iterations - (last or 0)),
        standing={} if last is None else standings.at_end(run, last),
        standing_after=last,
        detached=detached if state == "running" else None,
        silence=seen.silence,
        ended=ended if wrong else [],
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
    )


def _iterations(run: Run, seen: Seen) -> list[int]:
    """Iterations that have begun or for which jobs are queued, ascending; the initial pool is one where experts are trained from data."""
    submitted = {
        t
        for t in StateDir(run.state.jobs).iterations()
        if any(
            seen.numbers(AttemptDir(run, phase, t))
            for phase in with_alternatives(run, phases_of(run.recipe, t), t)
        )
    }
    begun = {t for t in (*run.state.iterations(), *submitted) if t > 0}
    return sorted(begun | {0}) if run.recipe.pool.experts else sorted(begun)


def _detached(chain: Chain | None, seen: Seen, looks: Sequence[PhaseView]) -> str | None:
    """What goes on in SLURM without a driver; None where nothing does."""
    if seen.silence is None:
        # The first job of a chain whose submission was broken off is held: it never starts by itself.
        held = set(chain.names) if chain is not None and not chain.whole else set[str]()
        names = {task.name for task in seen.living} - held
        count = sum(task.name in names for task in seen.living)
    else:
        names = {name for jobs in seen.jobs.values() for name in jobs.names}
        count = sum(look.status.running + look.status.queued for look in looks)
    if not names or not count:
        return None
    if chain is not None and chain.whole and names & set(chain.names):
        since = datetime.fromtimestamp(chain.submitted).astimezone().isoformat(timespec="minutes")
        ids = [job for _, found in chain.links for job in found]
        which = f" (jobs {ids[0]} to {ids[-1]})" if ids else ""
        return f"a detached launch{which}, submitted {since}, goes on by itself up to iteration {chain.last}"
    return (
        f"{count} task{'s' * (count != 1)} of an earlier launch; nobody will deal out what comes after them"
    )


def _ended(looks: Sequence[PhaseView], chain: Chain | None, seen: Seen) -> tuple[list[EndedTask], str | None]:
    """The tasks that ended a detached launch and the end of the log of one: those of the first phase that is not complete."""
    if chain is None or not chain.whole or seen.silence is not None:
        return [], None
    first = next((look for look in looks if not look.committed and not look.status.complete), None)
    if first is None:
        return [], None
    # The detached launch may have been made in the other way than the one that is asked for by now.
    alternatives = [
        look for look in looks if look.t == first.t and look.phase.name in first.phase.alternatives
    ]
    look = next((look for look in (first, *alternatives) if look.blamed(chain)), None)
    if look is None:
        return [], None
    blamed = look.blamed(chain)
    if look.states[blamed[0]] == "never":
        for before in looks[: looks.index(look)]:
            if not before.committed and (spoiled := before.spoiled(chain)):
                look, blamed = before, spoiled
                break
    forgotten = [job for key in blamed if look.forgotten(key) and (job := look.job(key))]
    try:
        fates = cli.ends_in_accounts(forgotten)
    except (SlurmUnavailable, SpartaError):
        fates = {}
    log = None if look.states[blamed[0]] == "failed" else look.log(blamed[0])
    return [look.ended(key, fates) for key in blamed], log


def _by_iteration(run: Run, looks: Sequence[PhaseView]) -> tuple[list[IterationStatus], GpuTime]:
    """Iterations, and the GPU time of all of them together."""
    found, gpus = [], []
    for t in sorted({look.t for look in looks}):
        mine = [look for look in looks if look.t == t]
        phases = [look.status for look in mine]
        measured = _measured(run, t) if mine[0].committed else None
        if measured is not None:
            gpu = GpuTime(measured.gpu_seconds, measured.gpu_idle)
            phases = [
                msgspec.structs.replace(phase, loads=measured.phases[phase.name].loads)
                if phase.name in measured.phases
                else phase
                for phase in phases
            ]
        else:
            gpu = gpu_time(array for look in mine for array in look.spans)
        gpus.append(gpu)
        found.append(IterationStatus(t, mine[0].committed, phases, gpu.used, gpu.idle))
    used, there = sum(gpu.used for gpu in gpus), sum(gpu.there for gpu in gpus)
    return found, GpuTime(used, max(0.0, 1 - used / there) if there else None)


def _measured(run: Run, t: int) -> IterationStats | None:
    """stats.json, where the iteration was measured and not with an earlier version."""
    path = run.iteration(t).stats
    stats = files.read_json(path, IterationStats) if path.is_file() else None
    return stats if stats is not None and stats.phases else None


def _failing_log(looks: Sequence[PhaseView]) -> str | None:
    """The last lines of the log of the phase that failed last."""
    for look in reversed(looks):
        if look.status.failed:
            return last_lines(look.attempts) if look.attempts.logs.is_dir() else None
    return None
