"""A detached launch: the jobs of all iterations, submitted at once, each depending on the one before, without a driver.

Arrays of phases whose items are not known yet are submitted at their maximal width; the step before them assigns their keys. A phase needs
all of the one before it (a judge reads every response, a training every pair), so dependencies are between whole arrays. If a task fails,
SLURM cancels the jobs that depend on it; a new launch continues from what is on disk.
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir, Piece
from sparta.cluster.parallelism import sharded
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry, SlurmUnavailable
from sparta.cluster.slurm.job_ids import names_and_places, noted_jobs, of_this_state
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.submit import cancel_named
from sparta.cluster.slurm.worker import ShardJob, assign_pieces
from sparta.errors import SpartaError
from sparta.methods.registry import phase_named, phases_of
from sparta.names import suggested
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.run import Run


class Chain(msgspec.Struct, frozen=True):
    """jobs/chain.json: the latest detached launch. whole: all of it was submitted; until then its first job is held.

    links: a description and the job ids of each link. names: of all its jobs. last: its last iteration. submitted: seconds since 1970.
    clusters: those that may have the jobs; empty: the default cluster of SLURM's commands.
    """

    links: list[tuple[str, list[str]]]
    names: list[str]
    whole: bool
    last: int
    submitted: float
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """One submission of a chain."""

    work: ShardJob
    shards: int

    def __str__(self) -> str:
        return " and ".join(f"{piece.phase} {piece.t}" for piece in self.work.pieces)


def chain_file(state: StateDir) -> Path:
    return state.jobs / "chain.json"


def latest_chain(run: Run) -> Chain | None:
    """The latest detached launch of `run`; None where there was none."""
    path = chain_file(run.state)
    remedy = f"end what is left of the detached launch with {suggested('launch', '--state', run.state.root, '--cancel')} and launch again"
    return files.read_json(path, Chain, remedy) if present(path) else None


def links_from(run: Run, first: int, last: int, tasks: Callable[[Phase], int]) -> list[Link]:
    """The links for the rest of iterations `first` to `last`: one for each array phase, one for each group of steps between two of them.

    Writes nothing. tasks: the largest number of shards of a phase, and the number where its items are not known yet.
    """
    pieces = [
        Piece(phase.name, t, AttemptDir(run, phase, t).next_number())
        for t in range(first, last + 1)
        for phase in phases_of(run.recipe, t)
        if t > first or not _complete(run, phase, t)
    ]
    planned = {piece.t for piece in pieces if phase_named(piece.phase).gives_plan}
    state = run.state.root.resolve()
    links = []
    for is_array, group in groupby(pieces, key=lambda piece: phase_named(piece.phase).is_array):
        if is_array:
            for piece in group:
                phase = phase_named(piece.phase, recipe=run.recipe)
                known = piece.t not in planned or not phase.needs_plan
                most = tasks(phase)
                shards = sharded(run, phase, piece.t, phase.missing(run, piece.t), most) if known else ()
                work = ShardJob(state, (piece,), detached=True)
                links.append(Link(work, len(shards) if known else most))
        else:
            steps = tuple(group)
            assigns = tuple(
                (piece, tasks(phase_named(piece.phase, recipe=run.recipe)))
                for piece in pieces
                if piece.t in {step.t for step in steps if phase_named(step.phase).gives_plan}
                and phase_named(piece.phase).needs_plan
            )
            links.append(Link(ShardJob(state, steps, assigns, detached=True), 1))
    return links


def submit_chain(run: Run, launcher: Slurm, links: Sequence[Link], last: int) -> Chain:
    """Assign the keys that are known, submit `links` one after the other, and only then release the first one."""
    later = {piece for link in links for piece, _ in link.work.assigns}
    for link in links:
        for piece in link.work.pieces:
            if piece not in later:
                phase = phase_named(piece.phase, recipe=run.recipe)
                assign_pieces(run, piece, link.shards, launcher.at_once(phase), launcher.gpus(phase))
    names = [array.name for link in links for array in launcher.arrays(link.work, link.shards)]
    chain = Chain(
        [], names, whole=False, last=last, submitted=time.time(), clusters=launcher.places(launcher.clusters)
    )
    files.write_json(chain_file(run.state), chain)
    before: list[str] = []
    try:
        for link in links:
            dependency = f"afterok:{':'.join(map(cli.number_of, before))}" if before else None
            on = cli.cluster_of(before[0]) if before and launcher.clusters else None
            before = launcher.submit(link.work, link.shards, dependency, hold=not before, on=on)
            chain = msgspec.structs.replace(chain, links=[*chain.links, (str(link), before)])
            files.write_json(chain_file(run.state), chain)
        chain = msgspec.structs.replace(chain, whole=True)
        files.write_json(chain_file(run.state), chain)
    except SpartaError as error:
        # Held jobs would count against the user's limit of queued jobs.
        try:
            cancel_unfinished(run)
        except SpartaError as more:
            raise SpartaError(f"{error}; {more}") from None
        raise
    _release(chain.links[0][1])
    return chain


def cancel_unfinished(run: Run) -> None:
    """Cancel the queued jobs of a chain whose submission was interrupted. None has started, because the first job is held."""
    chain = latest_chain(run)
    if chain is not None and not chain.whole:
        cancel_named(chain.names, run.state.code, chain.clusters)
        files.remove(chain_file(run.state))


def is_intact(chain: Chain, tasks: Sequence[QueueEntry]) -> bool:
    """Whether a chain will complete without intervention, judging by the run's `tasks`: its last jobs are queued and no job has failed."""
    jobs = {job for _, ids in chain.links for job in ids}
    last = chain.links[-1][1] if chain.links else []
    mine = [task for task in tasks if task.whole in jobs]
    failed = any(not task.live and task.state != "COMPLETED" for task in mine)
    return not failed and any(
        task.whole in last and task.live and task.state != "COMPLETING" for task in mine
    )


def cancel_rest(chain: Chain, tasks: Sequence[QueueEntry]) -> None:
    """Cancel the jobs of a broken chain that wait for a dependency. Tasks that run or wait in a running array continue."""
    jobs = {job for _, ids in chain.links for job in ids}
    rest = {
        task.whole
        for task in tasks
        if task.whole in jobs
        and task.state == "PENDING"
        and task.reason in ("Dependency", "DependencyNeverSatisfied")
    }
    with cli.answering():
        cli.cancel(sorted(rest))


def release(chain: Chain, tasks: Sequence[QueueEntry]) -> None:
    """Release the first jobs of a completely submitted chain if they are still held, because their launch was killed before it did."""
    first = chain.links[0][1] if chain.links else []
    held = {task.whole for task in tasks if task.whole in first and task.reason == "JobHeldUser"}
    if held:
        _release(sorted(held))


def release_held(run: Run) -> None:
    """`release` the latest chain of `run`, if there is one that is not finished."""
    chain = latest_chain(run)
    if chain is not None and chain.last >= run.state.next_iteration() and cli.installed():
        release(chain, jobs_in_slurm(run))


def cancel_orphans(run: Run) -> None:
    """Cancel held jobs of `run` that no file names: sbatch queued them after their launch had died and its chain was cancelled.

    Call it only for a run with nothing left to do. Where SLURM does not answer, the jobs stay for the next command.
    """
    if not cli.installed():
        return
    known = {job for jobs in noted_jobs(run) for job in jobs.ids}
    # They never start, so a complete run must not fail because of them.
    with suppress(SpartaError, SlurmUnavailable):
        cli.cancel(orphans(jobs_in_slurm(run), known))


def orphans(tasks: Sequence[QueueEntry], known: Collection[str]) -> list[str]:
    """Ids of jobs that are held by their user and not among the `known`."""
    held = {task.whole for task in tasks if task.state == "PENDING" and task.reason == "JobHeldUser"}
    return sorted(held - set(known))


def _release(jobs: Sequence[str]) -> None:
    with cli.answering("the chain is submitted but held, run the same command again when it does"):
        cli.release(jobs)


def jobs_in_slurm(run: Run) -> list[QueueEntry]:
    """Jobs of `run` that SLURM knows, whichever launch submitted them, including jobs that ended minutes ago.

    Raises SpartaError where SLURM does not answer.
    """
    with cli.answering():
        known = cli.tasks_named(*names_and_places(noted_jobs(run)))
    return of_this_state(run.state.code, known)


def live_jobs(run: Run) -> list[QueueEntry]:
    """The jobs of `jobs_in_slurm` that are queued or running."""
    return [task for task in jobs_in_slurm(run) if task.live]


def _complete(run: Run, phase: Phase, t: int) -> bool:
    return phase.is_countable(run, t) and not phase.missing(run, t)
