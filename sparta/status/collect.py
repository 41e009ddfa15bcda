"""Where a run stands, read from its state alone: also while it runs, after a crash, and for somebody else's run.

Whether a SLURM job is queued or running only SLURM knows: squeue is asked once. Nothing is written and no engine is loaded.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from sparta.arena.reputation import Standing
from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.driver import last_lines
from sparta.cluster.gpu_time import GpuTime, gpu_time
from sparta.cluster.slurm.detached import Chain, latest_chain
from sparta.cluster.slurm.queue import Seen, ask
from sparta.errors import SpartaError
from sparta.methods.budget import spent
from sparta.methods.registry import method_of, phases_of
from sparta.status.ended_tasks import EndedTask, ended_tasks
from sparta.status.forecast import seconds_an_iteration
from sparta.status.phase_status import PhaseStatus, phase_status
from sparta.status.phase_view import PhaseView
from sparta.store import files, standings
from sparta.store.failure import LaunchFailure, last_failure
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TokenCounts

RunState = Literal["done", "failed", "running", "stopped"]
EXIT_CODES: dict[RunState, int] = {"done": 0, "failed": 1, "running": 3, "stopped": 3}

Views = Sequence[tuple[PhaseView, PhaseStatus]]
"""Every phase of every iteration that has begun, in order."""


class IterationStatus(msgspec.Struct, frozen=True):
    """One iteration. combats, pairs, reasons, cut_responses, warning: what its merge counted, see IterationStats; nothing before it."""

    t: int
    committed: bool
    phases: list[PhaseStatus]
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None
    combats: int = 0
    pairs: int = 0
    reasons: dict[str, int] = {}
    cut_responses: int = 0
    warning: str = ""


class Status(msgspec.Struct, frozen=True):
    """A run. state: done; failed (the last launch ended with an error, or a detached one lost a task); running (a driver holds the lock, or
    jobs go on in SLURM without one); stopped.

    detached: without a driver, what goes on in SLURM all the same. silence: why SLURM could not be asked; what is queued or running is then
    as the files last said. standing: empty where reputations do not move. standing_after: an iteration; None while experts of the initial pool are trained. ended: the tasks that a failure is
    due to. gpu_seconds, gpu_idle: of all iterations together; tokens: of all that are committed.
    """

    run_id: str
    recipe: str
    state: RunState
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
    tokens: TokenCounts = TokenCounts()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.state]


def status_of(run: Run) -> Status:
    """The status of `run`. Raises SpartaError where nothing is committed that a run begins with."""
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
    views = _views(run, committed, driver is not None, seen)
    chain = latest_chain(run)
    detached = None if driver else _detached(chain, seen, views)
    failure = None if driver else last_failure(run)
    blame = driver is None and chain is not None and chain.whole and seen.silence is None
    ended, log = ended_tasks(views, chain) if blame and chain else ([], None)
    finished = last is not None and last >= run.recipe.iterations
    state = _state(finished, driver, detached, failure, ended, seen)
    wrong = state == "failed" or (state == "running" and failure is not None)
    iterations, gpu = _by_iteration(run, views)
    moved = method_of(run.recipe).has_reputations
    return Status(
        run_id=run.info.run_id,
        recipe=run.recipe.name,
        state=state,
        iterations=iterations,
        planned=run.recipe.iterations,
        driver=driver,
        failure=failure if wrong else None,
        log=(log or _failing_log(views)) if wrong else None,
        seconds_left=None if state == "done" else _seconds_left(run, last or 0),
        standing={} if last is None or not moved else standings.at_end(run, last),
        standing_after=last,
        detached=detached if state == "running" else None,
        silence=seen.silence,
        ended=ended if wrong else [],
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
        tokens=spent(run),
    )


def _views(run: Run, committed: Collection[int], driven: bool, seen: Seen) -> Views:
    views = (
        PhaseView(run, phase, t, t in committed, driven, seen)
        for t in _iterations(run, seen)
        for phase in with_alternatives(run, phases_of(run.recipe, t), t)
    )
    return [(view, phase_status(view)) for view in views]


def _state(
    finished: bool,
    driver: str | None,
    detached: str | None,
    failure: LaunchFailure | None,
    ended: Sequence[EndedTask],
    seen: Seen,
) -> RunState:
    if driver:
        return "running"
    if finished:
        return "done"
    # Where SLURM cannot be asked, a noted failure says more than what the files last said of the queue.
    if detached and not (failure and seen.silence):
        return "running"
    return "failed" if failure or ended else "stopped"


def _seconds_left(run: Run, last: int) -> float | None:
    """By the median of the iterations that were measured; None before there is one."""
    each = seconds_an_iteration(run)
    return None if each is None else each * (run.recipe.iterations - last)


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


def _detached(chain: Chain | None, seen: Seen, views: Views) -> str | None:
    """What goes on in SLURM without a driver; None where nothing does."""
    if seen.silence is None:
        # The first job of a chain whose submission was broken off is held: it never starts by itself.
        held = set(chain.names) if chain is not None and not chain.whole else set[str]()
        names = {task.name for task in seen.living} - held
        count = sum(task.name in names for task in seen.living)
    else:
        names = {name for jobs in seen.jobs.values() for name in jobs.names}
        count = sum(status.running + status.queued for _, status in views)
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


def _by_iteration(run: Run, views: Views) -> tuple[list[IterationStatus], GpuTime]:
    """Iterations, and the GPU time of all of them together."""
    found, gpus = [], []
    for t in sorted({view.t for view, _ in views}):
        mine = [view for view, _ in views if view.t == t]
        phases = [status for view, status in views if view.t == t]
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
            gpu = gpu_time(array for view in mine for array in view.spans)
        gpus.append(gpu)
        status = IterationStatus(t, mine[0].committed, phases, gpu.used, gpu.idle)
        counted = _counted(run, t)
        if counted is not None and counted.combats:
            status = msgspec.structs.replace(
                status,
                combats=counted.combats,
                pairs=counted.pairs,
                reasons=counted.reasons,
                cut_responses=counted.cut_responses,
                warning=counted.warning,
            )
        found.append(status)
    used, there = sum(gpu.used for gpu in gpus), sum(gpu.there for gpu in gpus)
    return found, GpuTime(used, max(0.0, 1 - used / there) if there else None)


def _measured(run: Run, t: int) -> IterationStats | None:
    """stats.json, where the iteration was measured and not with an earlier version."""
    stats = _counted(run, t)
    return stats if stats is not None and stats.phases else None


def _counted(run: Run, t: int) -> IterationStats | None:
    """stats.json, from the merge on."""
    return files.read_measured(run.iteration(t).stats, IterationStats)


def _failing_log(views: Views) -> str | None:
    """The last lines of the log of the phase that failed last."""
    for view, status in reversed(views):
        if status.failed:
            return last_lines(view.attempts) if view.attempts.logs.is_dir() else None
    return None
