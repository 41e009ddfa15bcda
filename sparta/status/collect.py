"""The status of a run, read from its state: also while it runs, after a crash, and for somebody else's run.

squeue is called once, because only SLURM knows which jobs are queued or running. Nothing is written and no engine is loaded.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from sparta.arena.reputation import Standing
from sparta.cluster.account import account_of, in_order
from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.driver import last_lines
from sparta.cluster.gpu_time import GpuTime
from sparta.cluster.slurm.detached import Chain, latest_chain
from sparta.cluster.slurm.queue import QueueSnapshot, ask
from sparta.errors import SpartaError
from sparta.methods.registry import method_of, phases_of
from sparta.status.ended_tasks import EndedTask, ended_tasks
from sparta.status.forecast import seconds_per_iteration
from sparta.status.phase_status import PhaseStatus, phase_status
from sparta.status.phase_view import PhaseView
from sparta.store import files, standings
from sparta.store.failure import LaunchFailure, last_failure
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run
from sparta.store.run_budget import spent
from sparta.store.stats import IterationStats, TimeAccount, TokenCounts

RunState = Literal["done", "failed", "running", "stopped"]
EXIT_CODES: dict[RunState, int] = {"done": 0, "failed": 1, "running": 3, "stopped": 3}

Views = Sequence[tuple[PhaseView, PhaseStatus]]
"""Every phase of every iteration that has begun, in order."""


class IterationStatus(msgspec.Struct, frozen=True):
    """One iteration. Fields after gpu_idle are counted by its merge, see IterationStats, and empty before that. outcome: most of them, in words.

    account: where its time went, so far; None before its first task, and where an earlier version measured it.
    """

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
    outcome: str = ""
    votes: int = 0
    missing_votes: int = 0
    comparisons: int = 0
    missing_comparisons: int = 0
    account: TimeAccount | None = None


class Status(msgspec.Struct, frozen=True):
    """A run. state: done; failed (the last launch ended with an error, or a detached one lost a task); running (a driver holds the lock, or
    SLURM has jobs of the run); stopped.

    detached: what runs in SLURM without a driver. silence: why SLURM did not answer; what is queued or running then comes from the files.
    standing: empty for a method without reputations. standing_after: the iteration of `standing`; None while experts of the initial pool are
    trained. ended: the tasks that caused a failure. gpu_seconds, gpu_idle: of all iterations together. tokens: of all committed iterations.
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
    """The status of `run`. Raises SpartaError where its initial pool is lost."""
    committed = set(run.state.committed())
    if not committed and not run.recipe.pool.experts:
        raise SpartaError(
            f"{run.state.root} has no committed iteration, not even iter_00: restore it from a copy"
        )
    last = max(committed, default=None)
    # squeue before records: a task that ends in between has then written its final record.
    queue = ask(run, committed)
    now = holder(run.state)
    driver = str(now.claim) if now and now.alive else None
    views = _views(run, committed, driver is not None, queue)
    chain = latest_chain(run)
    detached = None if driver else _detached(chain, queue, views)
    failure = None if driver else last_failure(run)
    find_cause = driver is None and chain is not None and chain.whole and queue.silence is None
    ended, log = ended_tasks(views, chain) if find_cause and chain else ([], None)
    finished = last is not None and last >= run.recipe.iterations
    state = _state(finished, driver, detached, failure, ended, queue)
    show_failure = state == "failed" or (state == "running" and failure is not None)
    iterations, gpu = _by_iteration(run, views)
    moved = method_of(run.recipe).has_reputations
    return Status(
        run_id=run.info.run_id,
        recipe=run.recipe.name,
        state=state,
        iterations=iterations,
        planned=run.recipe.iterations,
        driver=driver,
        failure=failure if show_failure else None,
        log=(log or _failing_log(views)) if show_failure else None,
        seconds_left=None if state == "done" else _seconds_left(run, last or 0),
        standing={} if last is None or not moved else standings.at_end(run, last),
        standing_after=last,
        detached=detached if state == "running" else None,
        silence=queue.silence,
        ended=ended if show_failure else [],
        gpu_seconds=gpu.used,
        gpu_idle=gpu.idle,
        tokens=spent(run),
    )


def _views(run: Run, committed: Collection[int], driven: bool, queue: QueueSnapshot) -> Views:
    views = (
        PhaseView(run, phase, t, t in committed, driven, queue)
        for t in _iterations(run, queue)
        for phase in with_alternatives(run, phases_of(run.recipe, t), t)
    )
    return [(view, phase_status(view)) for view in views]


def _state(
    finished: bool,
    driver: str | None,
    detached: str | None,
    failure: LaunchFailure | None,
    ended: Sequence[EndedTask],
    queue: QueueSnapshot,
) -> RunState:
    if driver:
        return "running"
    if finished:
        return "done"
    # Where SLURM does not answer, a recorded failure is more reliable than the files' view of the queue.
    if detached and not (failure and queue.silence):
        return "running"
    return "failed" if failure or ended else "stopped"


def _seconds_left(run: Run, last: int) -> float | None:
    """Estimated from the median of the measured iterations; None before there is one."""
    each = seconds_per_iteration(run)
    return None if each is None else each * (run.recipe.iterations - last)


def _iterations(run: Run, queue: QueueSnapshot) -> list[int]:
    """Iterations that have begun or have queued jobs, ascending; with iteration 0 where experts are trained from data."""
    submitted = {
        t
        for t in StateDir(run.state.jobs).iterations()
        if any(
            queue.numbers(AttemptDir(run, phase, t))
            for phase in with_alternatives(run, phases_of(run.recipe, t), t)
        )
    }
    begun = {t for t in (*run.state.iterations(), *submitted) if t > 0}
    return sorted(begun | {0}) if run.recipe.pool.experts else sorted(begun)


def _detached(chain: Chain | None, queue: QueueSnapshot, views: Views) -> str | None:
    """What runs in SLURM without a driver, for a person; None where nothing does."""
    if queue.silence is None:
        # The first job of a chain whose submission was interrupted is held and never starts.
        held = set(chain.names) if chain is not None and not chain.whole else set[str]()
        names = {task.name for task in queue.live} - held
        count = sum(task.name in names for task in queue.live)
    else:
        names = {name for jobs in queue.jobs.values() for name in jobs.names}
        count = sum(status.running + status.queued for _, status in views)
    if not names or not count:
        return None
    if chain is not None and chain.whole and names & set(chain.names):
        since = datetime.fromtimestamp(chain.submitted).astimezone().isoformat(timespec="minutes")
        ids = [job for _, found in chain.links for job in found]
        which = f" (jobs {ids[0]} to {ids[-1]})" if ids else ""
        return f"a detached launch{which}, submitted {since}, continues up to iteration {chain.last}"
    return f"{count} task{'s' * (count != 1)} of an earlier launch; without a driver, nothing will start after them"


def _by_iteration(run: Run, views: Views) -> tuple[list[IterationStatus], GpuTime]:
    """The status of each iteration, and the GPU time of all together."""
    found, gpus = [], []
    for t in sorted({view.t for view, _ in views}):
        mine = [view for view, _ in views if view.t == t]
        phases = [status for view, status in views if view.t == t]
        measured = _measured(run, t) if mine[0].committed else None
        if measured is not None:
            account = measured.account and in_order(measured.account, [view.phase for view in mine])
            gpu = GpuTime(measured.gpu_seconds, measured.gpu_idle)
            phases = [
                msgspec.structs.replace(phase, loads=measured.phases[phase.name].loads)
                if phase.name in measured.phases
                else phase
                for phase in phases
            ]
        else:
            account = account_of(run, [view.tasks for view in mine])
            gpu = _gpu_time(account)
        gpus.append(gpu)
        status = IterationStatus(t, mine[0].committed, phases, gpu.used, gpu.idle, account=account)
        counted = _counted(run, t)
        if counted is not None and counted.combats:
            status = msgspec.structs.replace(
                status,
                combats=counted.combats,
                pairs=counted.pairs,
                reasons=counted.reasons,
                cut_responses=counted.cut_responses,
                warning=counted.warning,
                outcome=counted.in_words,
                votes=counted.votes,
                missing_votes=counted.missing_votes,
                comparisons=counted.comparisons.votes if counted.comparisons else 0,
                missing_comparisons=counted.comparisons.missing if counted.comparisons else 0,
            )
        found.append(status)
    used, there = sum(gpu.used for gpu in gpus), sum(map(_there, gpus))
    return found, GpuTime(used, max(0.0, 1 - used / there) if there else None)


def _gpu_time(account: TimeAccount | None) -> GpuTime:
    """The GPU time of an account; nothing where its tasks held no GPU."""
    on_gpus = account is not None and account.unit == "GPU"
    return GpuTime(account.used, account.idle_share) if account and on_gpus else GpuTime(0.0, None)


def _there(gpu: GpuTime) -> float:
    """GPU-seconds that there were, used or idle."""
    return 0.0 if gpu.idle is None or gpu.idle >= 1 else gpu.used / (1 - gpu.idle)


def _measured(run: Run, t: int) -> IterationStats | None:
    """stats.json, if it has the measurements of phases, which early versions did not write."""
    stats = _counted(run, t)
    return stats if stats is not None and stats.phases else None


def _counted(run: Run, t: int) -> IterationStats | None:
    """stats.json, which exists from the merge on."""
    return files.read_measured(run.iteration(t).stats, IterationStats)


def _failing_log(views: Views) -> str | None:
    """The last lines of the log of the phase that failed last."""
    for view, status in reversed(views):
        if status.failed:
            return last_lines(view.attempts) if view.attempts.logs.is_dir() else None
    return None
