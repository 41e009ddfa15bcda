"""What runs inside every task: open the run, read one shard's keys, make the missing rows, record how it ended."""

import os
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sparta.cluster.attempts import AttemptDir, Piece, TaskReporter, Watch, new_record
from sparta.cluster.gpu_time import last_sign_of
from sparta.cluster.gpus import gpus_of_task
from sparta.engines.factory import loads_so_far
from sparta.engines.fallbacks import fallbacks
from sparta.engines.stopwatch import timing
from sparta.errors import SpartaError, printable
from sparta.store.disk import os_errors_in_words
from sparta.store.layout import StateDir
from sparta.store.run import Run

LOG_EVERY_SECONDS = 10.0
CHECK_EVERY_SECONDS = 5.0

_reporting: TaskReporter | None = None
"""The reporter of the task that runs in this process now."""


def run_task(run: Run, piece: Piece, shard: int, watch: Watch) -> None:
    """Do shard `shard` of the attempt `piece`. Raises what the phase raises, with disk errors as SpartaError; the task's record has it too."""
    with os_errors_in_words(run.state.root):
        _run_task(run, piece, shard, watch)


def _run_task(run: Run, piece: Piece, shard: int, watch: Watch) -> None:
    global _reporting
    attempts, number = piece.attempts(run), piece.number
    keys = attempts.keys(number, shard)
    before_it = loads_so_far()
    before = attempts.record(number, shard)
    first_part = attempts.phase.time_part
    record = new_record(
        shard,
        len(keys),
        before,
        last_sign_of(run, attempts, number, before) if before else 0,
        gpus_of_task(run, attempts.phase),
        first_part,
    )
    report = _reporting = TaskReporter(attempts.record_file(number, shard), record)

    def spends(parts: Mapping[str, float], doing: str) -> None:
        loaded = loads_so_far()
        report.spends(parts, doing, loaded.bases - before_it.bases, loaded.seconds - before_it.seconds)

    try:
        _reporting.started()
        _refuse_if_reassigned(attempts, number)
        watching = _unless_overtaken(_reporting, attempts, number, watch)
        with os_errors_in_words(run.state.root), timing(first_part, spends), report.beating():
            attempts.phase.perform(run, piece.t, keys, number, shard, watching, record.requeues)
        _reporting.noted(fallbacks())
        loaded = loads_so_far()
        _reporting.done(loaded.bases - before_it.bases, loaded.seconds - before_it.seconds)
    except BaseException as error:
        if _reporting.preempted and not _is_the_end(error):
            # An error while stopping for preemption, such as SLURM killing the step early: the task will restart, so it has not failed.
            raise SystemExit(1) from error
        # Where the disk fails, writing the record fails as well; the original error is the one to report.
        with suppress(SpartaError):
            _reporting.failed(error)
        raise
    finally:
        _reporting = None


def _unless_overtaken(report: TaskReporter, attempts: AttemptDir, number: int, watch: Watch) -> Watch:
    """`watch`, extended to end the task soon after somebody else has its work: SLURM restarted it elsewhere because it assumed this node dead, or
    a driver that cannot see this machine has assigned its keys again.
    """
    checked = time.monotonic()

    def watching(items: float) -> None:
        nonlocal checked
        watch(items)
        if time.monotonic() - checked > CHECK_EVERY_SECONDS:
            checked = time.monotonic()
            if report.overtaken:
                raise SystemExit("SLURM has restarted this task elsewhere: this start of it stops here")
            _refuse_if_reassigned(attempts, number)
            report.noted(fallbacks())

    return watching


def _is_the_end(error: BaseException) -> bool:
    """Whether submitit raised `error` because the task reached its time limit too often to be requeued again."""
    return type(error).__name__ == "UncompletedJobError"


def note_requeue() -> None:
    """Record that SLURM will restart the task of this process, if it runs one. Its rows are already on disk."""
    if _reporting is not None:
        _reporting.requeued()


def _refuse_if_reassigned(attempts: AttemptDir, number: int) -> None:
    """Raises SpartaError where a later attempt has this task's keys.

    That happens when a driver was killed after starting this task and before noting it: its successor assigns the same keys again. The successor
    first assigns and then looks for records of running tasks; this task first writes its record and then looks for later attempts. So one of the
    two notices. Alternatives share attempt numbers, because the successor may use one for the same rows. A driver waits for tasks that it can see,
    so a later attempt means that it could not see this one.
    """
    for each in (attempts, *attempts.alternatives):
        latest = max((attempt.number for attempt in each.all()), default=number)
        if latest > number:
            raise SpartaError(
                f"these keys were assigned again, in attempt {latest} at {each.phase.name}: this task stops here"
            )


def main(state: str, piece: Piece, shard: int, gpu: str = "") -> None:
    """The entry point of a task process of the local launcher. gpu: its CUDA_VISIBLE_DEVICES; empty: unchanged."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # local.py starts this process with the signal blocked; one that arrived meanwhile is delivered now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        with os_errors_in_words(Path(state)):
            run = Run.open(StateDir(Path(state)))
    except SpartaError as error:
        print(f"error: {error}", flush=True)
        return
    run_and_log(run, piece, shard)


def run_and_log(run: Run, piece: Piece, shard: int) -> str | None:
    """`run_task`, with progress and outcome printed to standard output, the job's log. Returns the error message, None if it succeeded."""
    print(f"{piece.phase} of iteration {piece.t}: attempt {piece.number}, shard {shard}", flush=True)
    done = 0.0
    shown = time.monotonic()

    def watch(items: float) -> None:
        nonlocal done, shown
        done += items
        if time.monotonic() - shown > LOG_EVERY_SECONDS:
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
