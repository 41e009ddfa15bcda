"""Which tasks ended a detached launch, and why: there was no driver to report it."""

from collections.abc import Mapping, Sequence

import msgspec

from sparta.cluster.driver import LOG_LINES
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import SlurmUnavailable
from sparta.cluster.slurm.detached import Chain
from sparta.errors import SpartaError
from sparta.status.phase_status import PhaseStatus
from sparta.status.phase_view import PhaseView, TaskKey


class EndedTask(msgspec.Struct, frozen=True):
    """A task that stopped a run. shard is None where no task of the phase ever started. why: its error, or SLURM's final state."""

    phase: str
    t: int
    shard: int | None
    node: str | None
    job: str | None
    why: str


def ended_tasks(
    views: Sequence[tuple[PhaseView, PhaseStatus]], chain: Chain
) -> tuple[list[EndedTask], str | None]:
    """The tasks of the first incomplete phase that ended the detached launch `chain`, and the last lines of one of their logs."""
    unfinished = [view for view, status in views if not view.committed and not status.complete]
    if not unfinished:
        return [], None
    first = unfinished[0]
    # The recipe may have switched to an alternative phase since the launch.
    candidates = [first, *(view for view, _ in views if _is_alternative(view, first))]
    found = ((view, _culprits(view, chain)) for view in candidates)
    view, culprits = next(((view, keys) for view, keys in found if keys), (first, []))
    if not culprits:
        return [], None
    if view.states[culprits[0]] == "never":
        before = [one for one, _ in views][: [one for one, _ in views].index(view)]
        view, culprits = _cancelled_before(before, chain) or (view, culprits)
    end_states = _states_in_accounting(view, culprits)
    # A failed task's own error says more than the end of its log.
    log = None if view.states[culprits[0]] == "failed" else _last_lines(view, culprits[0])
    return [_ended(view, key, end_states) for key in culprits], log


def _is_alternative(view: PhaseView, first: PhaseView) -> bool:
    return view.t == first.t and view.phase.name in first.phase.alternatives


def _culprits(view: PhaseView, chain: Chain) -> list[TaskKey]:
    """The tasks of a phase that ended the launch: those that failed, else those that were lost, else those that never started."""
    mine = _of_chain(view, chain)
    for state in ("failed", "lost", "never"):
        if found := [key for key in mine if view.states[key] == state]:
            return found
    return []


def _cancelled_before(views: Sequence[PhaseView], chain: Chain) -> tuple[PhaseView, list[TaskKey]] | None:
    """The first phase with tasks that finished their work but whose jobs did not complete, for example cancelled ones. Jobs that depend on them
    never start.
    """
    for view in views:
        done = [] if view.committed else [key for key in _of_chain(view, chain) if view.states[key] == "done"]
        if not_completed := [key for key in done if _ended_badly(view, key)]:
            return view, not_completed
    return None


def _of_chain(view: PhaseView, chain: Chain) -> list[TaskKey]:
    """Tasks of the latest attempt, if the chain submitted it."""
    number = view.numbers[-1] if view.numbers else -1
    jobs = view.jobs(number)
    if jobs is None or not set(jobs.names) <= set(chain.names):
        return []
    return sorted(key for key in view.states if key[0] == number)


def _ended_badly(view: PhaseView, key: TaskKey) -> bool:
    entry = view.queue_entry(key)
    if entry is not None:
        return not entry.live and entry.state != "COMPLETED"
    # The log of a requeued task also has messages about its earlier starts.
    return view.records[key].requeues == 0 and _noted_by_slurm(view, key) is not None


def _states_in_accounting(view: PhaseView, keys: Sequence[TaskKey]) -> Mapping[str, str]:
    """Final states by job id, for tasks that have no final record and that squeue does not list any more."""
    unlisted = [
        job
        for key in keys
        if view.states[key] != "failed" and view.queue_entry(key) is None and (job := view.job(key))
    ]
    try:
        return cli.states_in_accounting(unlisted)
    except (SlurmUnavailable, SpartaError):
        return {}


def _ended(view: PhaseView, key: TaskKey, end_states: Mapping[str, str]) -> EndedTask:
    """A task with the reason why it ended."""
    record, job, entry = view.records.get(key), view.job(key), view.queue_entry(key)
    in_slurm = (entry.state if entry else end_states.get(job or "", "")).lower() or "gone from SLURM's queue"
    said = (record.said or record.error) if record else None
    why = said or (in_slurm if record else f"never started, {in_slurm}")
    if view.states[key] == "done":
        why = f"{in_slurm}, its work done"
    if said is None and entry is None and (noted := _noted_by_slurm(view, key)):
        why = f"{why}; its log says: {noted}"
    return EndedTask(view.phase.name, view.t, key[1], view.node(key), job, why)


def _last_lines(view: PhaseView, key: TaskKey) -> str | None:
    """The last lines of the task's log."""
    return "\n".join(f"  {line}" for line in view.log_lines(key)[-LOG_LINES:]) or None


def _noted_by_slurm(view: PhaseView, key: TaskKey) -> str | None:
    """SLURM's message about the end of a task in its log, such as "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT ... ***"."""
    lines = reversed(view.log_lines(key))
    return next((line for line in lines if line.startswith(("slurmstepd", "srun: error"))), None)
