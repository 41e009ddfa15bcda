"""Which tasks a detached launch ended with, and why: nobody was there to say it."""

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
    """A task that stopped a run. shard is None where none of the phase's tasks ever started. why: its error, or what SLURM says of its end."""

    phase: str
    t: int
    shard: int | None
    node: str | None
    job: str | None
    why: str


def ended_tasks(
    views: Sequence[tuple[PhaseView, PhaseStatus]], chain: Chain
) -> tuple[list[EndedTask], str | None]:
    """The tasks that ended the detached launch `chain`, and the end of the log of one: those of the first phase that is not complete."""
    unfinished = [view for view, status in views if not view.committed and not status.complete]
    if not unfinished:
        return [], None
    first = unfinished[0]
    # The detached launch may have been made in the other way than the one that is asked for by now.
    candidates = [first, *(view for view, _ in views if _is_alternative(view, first))]
    found = ((view, _blamed(view, chain)) for view in candidates)
    view, blamed = next(((view, keys) for view, keys in found if keys), (first, []))
    if not blamed:
        return [], None
    if view.states[blamed[0]] == "never":
        before = [one for one, _ in views][: [one for one, _ in views].index(view)]
        view, blamed = _spoiled_before(before, chain) or (view, blamed)
    ends = _ends_in_accounts(view, blamed)
    # The driver's own error says what a task that failed has to say.
    log = None if view.states[blamed[0]] == "failed" else _last_lines(view, blamed[0])
    return [_ended(view, key, ends) for key in blamed], log


def _is_alternative(view: PhaseView, first: PhaseView) -> bool:
    return view.t == first.t and view.phase.name in first.phase.alternatives


def _blamed(view: PhaseView, chain: Chain) -> list[TaskKey]:
    """Tasks that ended a detached launch here: those that failed, or were lost, or else never came to start."""
    mine = _of_chain(view, chain)
    for state in ("failed", "lost", "never"):
        if found := [key for key in mine if view.states[key] == state]:
            return found
    return []


def _spoiled_before(views: Sequence[PhaseView], chain: Chain) -> tuple[PhaseView, list[TaskKey]] | None:
    """The first phase with tasks that did all their work and whose jobs did not end well, such as cancelled ones: what depends on them never
    starts.
    """
    for view in views:
        done = [] if view.committed else [key for key in _of_chain(view, chain) if view.states[key] == "done"]
        if spoiled := [key for key in done if _ended_badly(view, key)]:
            return view, spoiled
    return None


def _of_chain(view: PhaseView, chain: Chain) -> list[TaskKey]:
    """Tasks of the latest attempt, where the chain has submitted it."""
    number = view.numbers[-1] if view.numbers else -1
    jobs = view.jobs(number)
    if jobs is None or not set(jobs.names) <= set(chain.names):
        return []
    return sorted(key for key in view.states if key[0] == number)


def _ended_badly(view: PhaseView, key: TaskKey) -> bool:
    entry = view.queue_entry(key)
    if entry is not None:
        return not entry.live and entry.state != "COMPLETED"
    # The log of one that was requeued also tells of earlier starts.
    return view.records[key].requeues == 0 and _noted_by_slurm(view, key) is not None


def _ends_in_accounts(view: PhaseView, keys: Sequence[TaskKey]) -> Mapping[str, str]:
    """By job id, what accounting says of those that neither say themselves how they ended nor are known to squeue."""
    forgotten = [
        job
        for key in keys
        if view.states[key] != "failed" and view.queue_entry(key) is None and (job := view.job(key))
    ]
    try:
        return cli.ends_in_accounts(forgotten)
    except (SlurmUnavailable, SpartaError):
        return {}


def _ended(view: PhaseView, key: TaskKey, ends: Mapping[str, str]) -> EndedTask:
    """Why a blamed task ended."""
    record, job, entry = view.records.get(key), view.job(key), view.queue_entry(key)
    in_slurm = (entry.state if entry else ends.get(job or "", "")).lower() or "gone from SLURM's queue"
    said = (record.said or record.error) if record else None
    why = said or (in_slurm if record else f"never started, {in_slurm}")
    if view.states[key] == "done":
        why = f"{in_slurm}, its work done"
    if said is None and entry is None and (noted := _noted_by_slurm(view, key)):
        why = f"{why}; its log says: {noted}"
    return EndedTask(view.phase.name, view.t, key[1], view.node(key), job, why)


def _last_lines(view: PhaseView, key: TaskKey) -> str | None:
    """The last lines of that very task's log."""
    return "\n".join(f"  {line}" for line in view.printed(key)[-LOG_LINES:]) or None


def _noted_by_slurm(view: PhaseView, key: TaskKey) -> str | None:
    """What SLURM itself wrote into a task's log of its end, such as "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT ... ***"."""
    lines = reversed(view.printed(key))
    return next((line for line in lines if line.startswith(("slurmstepd", "srun: error"))), None)
