"""What runs inside a job, wherever the job runs: open the run, take one shard's keys, do what is missing of them, say how it went."""

import os
import signal
import time
import traceback
from contextlib import suppress
from pathlib import Path

from sparta.cluster.attempts import AttemptDir, Piece, TaskReporter, Watch, begin_record
from sparta.cluster.gpu_time import last_sign
from sparta.engines.factory import loads_so_far
from sparta.errors import SpartaError, printable
from sparta.store.disk import os_errors_in_words
from sparta.store.layout import StateDir
from sparta.store.run import Run

SAY_EVERY_SECONDS = 10.0
LOOK_EVERY_SECONDS = 5.0

_reporting: TaskReporter | None = None
"""The report of the task that runs in this process now."""


def run_task(run: Run, piece: Piece, shard: int, watch: Watch) -> None:
    """Do shard `shard` of the attempt `piece`. What it raises is what the phase raised, a disk's error in words; the task's record says so too."""
    with os_errors_in_words(run.state.root):
        _run_task(run, piece, shard, watch)


def _run_task(run: Run, piece: Piece, shard: int, watch: Watch) -> None:
    global _reporting
    attempts, number = piece.attempts(run), piece.number
    keys = attempts.keys(number, shard)
    before_it = loads_so_far()
    before = attempts.record(number, shard)
    record = begin_record(shard, len(keys), before, last_sign(run, attempts, number, before) if before else 0)
    _reporting = TaskReporter(attempts.record_file(number, shard), record)
    try:
        _reporting.begins()
        _refuse_if_dealt_again(attempts, number)
        watching = _unless_overtaken(_reporting, attempts, number, watch)
        with os_errors_in_words(run.state.root):
            attempts.phase.perform(run, piece.t, keys, number, shard, watching, record.requeues)
        loaded = loads_so_far()
        _reporting.done(loaded.bases - before_it.bases, loaded.seconds - before_it.seconds)
    except BaseException as error:
        if _reporting.leaves and not _is_the_end(error):
            # Whatever was in the way of a clean leave, SLURM's own hurry for one: the task is over here and not failed.
            raise SystemExit(1) from error
        # On a disk that fails, say, the error itself tells more than that this could not be written.
        with suppress(SpartaError):
            _reporting.failed(error)
        raise
    finally:
        _reporting = None


def _unless_overtaken(report: TaskReporter, attempts: AttemptDir, number: int, watch: Watch) -> Watch:
    """`watch`, which also ends the task soon after somebody else has its work: SLURM has started it again elsewhere, taking this node for lost, or
    a driver that cannot see this machine has dealt its keys out again.
    """
    looked = time.monotonic()

    def watching(items: float) -> None:
        nonlocal looked
        watch(items)
        if time.monotonic() - looked > LOOK_EVERY_SECONDS:
            looked = time.monotonic()
            if report.overtaken:
                raise SystemExit("SLURM has started this task again elsewhere: nothing more is done here")
            _refuse_if_dealt_again(attempts, number)

    return watching


def _is_the_end(error: BaseException) -> bool:
    """Whether submitit raised `error` because the task has run out of time too often to be requeued again."""
    return type(error).__name__ == "UncompletedJobError"


def leave_for_requeue() -> None:
    """Note down that this process's task, if it is at one, will be started again by SLURM; its rows are on disk already."""
    if _reporting is not None:
        _reporting.requeued()


def _refuse_if_dealt_again(attempts: AttemptDir, number: int) -> None:
    """A driver that was killed between starting this task and noting it down leaves its successor to deal the same keys out again.

    That one deals first and then looks for tasks that have said they run; this one has said so and now looks. So one of the two notices.
    The successor may make the same rows in another way: numbers are common to alternatives. It waits for tasks that it can see, and so does not
    see this one if it deals later.
    """
    for each in (attempts, *attempts.alternatives):
        latest = max((attempt.number for attempt in each.all()), default=number)
        if latest > number:
            raise SpartaError(
                f"these keys have been dealt out again, in attempt {latest} at {each.phase.name}: nothing more is done here"
            )


def main(state: str, piece: Piece, shard: int, gpu: str = "") -> None:
    """A task in a process of its own, started by the local cluster. gpu: the one it may use, where the launcher shares them out."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # Blocked since before this process began, see local.py; what came in the meantime arrives now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        with os_errors_in_words(Path(state)):
            run = Run.open(StateDir(Path(state)))
    except SpartaError as error:
        print(f"error: {error}", flush=True)
        return
    run_and_tell(run, piece, shard)


def run_and_tell(run: Run, piece: Piece, shard: int) -> str | None:
    """`run_task` with its progress and its end in words on standard output, the job's log. Returns what went wrong, None if nothing did."""
    print(f"{piece.phase} of iteration {piece.t}: attempt {piece.number}, shard {shard}", flush=True)
    done = 0.0
    shown = time.monotonic()

    def watch(items: float) -> None:
        nonlocal done, shown
        done += items
        if time.monotonic() - shown > SAY_EVERY_SECONDS:
            shown = time.monotonic()
            print(f"{piece.phase}: {done:.1f} items done", flush=True)

    try:
        run_task(run, piece, shard, watch)
    except SpartaError as error:
        print(f"error: {error}", flush=True)
        return str(error)
    except Exception as error:
        print(printable(traceback.format_exc()), flush=True)
        return f"{type(error).__name__}: {error}"
    print(f"{piece.phase}: {done:.1f} items done; the shard is complete", flush=True)
    return None
