"""What runs inside a SLURM job: one shard of an attempt, or, in a detached launch, the steps between two array phases.

submitit calls a `ShardJob`, and its `checkpoint` after SLURM's signal: shortly before the time limit, or at preemption. The task is then requeued
and continues its shard at the first missing key, a training at the update where it stopped.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from sparta.cluster.account import measure
from sparta.cluster.attempts import Piece
from sparta.cluster.parallelism import sharded
from sparta.cluster.slurm.container import REQUEUE_STATUS, REQUEUE_VARIABLE
from sparta.cluster.task import note_requeue, run_and_log
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.store.disk import os_errors_in_words
from sparta.store.failure import forget_failure, last_failure, note_failure
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.preemption import postpone

SECONDS_TO_END = 5.0
"""How long left-over child processes may take to stop before they are killed."""


class ShardJob:
    """Runs one shard of each of `pieces`, in order.

    assigns: attempts whose keys are assigned after the pieces, which make what they depend on, and to how many shards at most. detached: no
    driver watches, so why a run stopped must be noted by the job itself.
    """

    def __init__(
        self,
        state: Path,
        pieces: tuple[Piece, ...],
        assigns: tuple[tuple[Piece, int], ...] = (),
        detached: bool = False,
    ) -> None:
        self.state, self.pieces, self.assigns, self.detached = str(state), pieces, assigns, detached

    def __call__(self, shard: int, warning: float) -> None:
        """Run shard `shard`. warning: the least seconds between SLURM's signal and the time limit."""
        # Half of the time is for saving, the other half for the requeue.
        with requeued_from_outside(), children_shielded(warning / 2):
            try:
                with os_errors_in_words(Path(self.state)):
                    run = Run.open(StateDir(Path(self.state)))
                    for piece in self.pieces:
                        self._do(run, piece, shard)
                    for piece, tasks in self.assigns:
                        assign_pieces(run, piece, tasks)
            except SpartaError as error:
                self._stop(self.pieces[0], shard, str(error))

    def checkpoint(self, shard: int, warning: float) -> Any:
        """submitit's hook, called before the requeue. Rows are already on disk."""
        import submitit

        note_requeue()
        return submitit.helpers.DelayedSubmission(self, shard, warning)

    def _do(self, run: Run, piece: Piece, shard: int) -> None:
        attempt = piece.attempts(run).attempt(piece.number)
        if attempt is None:
            self._stop(piece, shard, "its keys were not assigned: the job that assigns them did not succeed")
        elif shard < attempt.shards:
            error = run_and_log(run, piece, shard)
            if error is not None:
                self._stop(piece, shard, error)
            phases = phases_of(run.recipe, piece.t)
            if piece.phase == phases[-1].name:
                measure(run, phases, piece.t)
            self._forget(run, piece, shard)
        else:
            print(
                f"{piece.phase} of iteration {piece.t}: there is no shard {shard}, nothing to do", flush=True
            )

    def _stop(self, piece: Piece, shard: int, error: str) -> None:
        """Exit with status 1, so that SLURM cancels the jobs that depend on this one."""
        print(f"this job stops: {error}", flush=True)
        if self.detached:
            with suppress(SpartaError):  # a failing disk; the error is in the log
                note_failure(StateDir(Path(self.state)), _named(piece, shard) + error)
        sys.exit(1)

    def _forget(self, run: Run, piece: Piece, shard: int) -> None:
        """Remove the note of a failure by an earlier start of this task, such as one that SLURM killed."""
        noted = last_failure(run) if self.detached else None
        if noted is not None and noted.said.startswith(_named(piece, shard)):
            forget_failure(run.state)


def _named(piece: Piece, shard: int) -> str:
    return f"{piece.phase} of iteration {piece.t}, shard {shard}: "


def assign_pieces(run: Run, piece: Piece, tasks: int, at_once: int = 0, gpus: int = 0) -> None:
    """Assign the missing keys of a phase to at most `tasks` shards, under the reserved number. Does nothing if that was done before.

    at_once, gpus: as in `Attempt`, for those that the launch itself assigns; jobs of its chain need not know.
    """
    attempts = piece.attempts(run)
    if attempts.attempt(piece.number) is None:
        phase = attempts.phase
        shards = sharded(run, phase, piece.t, phase.missing(run, piece.t), tasks)
        attempts.assign(shards, "slurm", piece.number, at_once=at_once, gpus=gpus)


@contextmanager
def children_shielded(seconds_to_save: float = 0.0) -> Iterator[None]:
    """Shields child processes from SLURM's signal, which goes to every process of the step, and ends all of them when the block ends.

    The signal is blocked in this thread, and so in every process that it starts. One extra thread receives it and wakes the main thread with
    another signal. A library's older thread may receive it instead, which leads to the same handler: submitit's, called once however often SLURM
    repeats the signal. seconds_to_save: time for a training to save its current update first.
    """
    handler = signal.getsignal(signal.SIGUSR2)
    if not callable(handler):
        raise SpartaError(
            "a SLURM task was started without submitit's signal handler: start it through submitit"
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    main = threading.get_ident()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            _stop_for_preemption(handler)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopping or not (seconds_to_save and postpone(stop)):
            stop()
        elif not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, seconds_to_save)

    def pass_on() -> None:
        while True:
            signal.sigwait({signal.SIGUSR2})
            signal.pthread_kill(main, signal.SIGUSR1)

    signal.signal(signal.SIGUSR2, on_signal)
    old = signal.signal(signal.SIGUSR1, on_signal)
    signal.signal(signal.SIGALRM, stop)
    threading.Thread(target=pass_on, name="SLURM's signal", daemon=True).start()
    try:
        yield
    finally:
        stopping = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        end_children()
        # The thread keeps running: a late signal from it must not trigger the default action, which kills the process.
        signal.signal(signal.SIGUSR1, old if callable(old) else signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def requeued_from_outside() -> Iterator[None]:
    """In a container, where SLURM's commands need not be: a requeue of submitit's becomes this process' exit status, which the batch script reads.

    Without a container it does nothing.
    """
    if REQUEUE_VARIABLE not in os.environ:
        yield
        return
    from submitit.slurm.slurm import SlurmJobEnvironment

    wanted = False

    def leave(environment: SlurmJobEnvironment, countdown: int) -> None:
        nonlocal wanted
        wanted = True
        print(f"the batch script requeues this task ({countdown} remaining timeouts)", flush=True)

    before = SlurmJobEnvironment._requeue
    SlurmJobEnvironment._requeue = leave  # type: ignore[assignment, method-assign]
    try:
        yield
    except BaseException:
        # Whatever else went wrong while it stopped: the task is saved up to here, and continues from there.
        if wanted:
            raise SystemExit(REQUEUE_STATUS) from None
        raise
    finally:
        SlurmJobEnvironment._requeue = before  # type: ignore[method-assign]


def _stop_for_preemption(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have submitit requeue the task. At preemption SLURM requeues it without that, and may kill or refuse submitit's scontrol."""
    try:
        handler(signal.SIGUSR2, None)
    except (subprocess.SubprocessError, OSError) as error:
        # If SLURM does not requeue it either, the task is gone from the queue, and its driver assigns the rest again.
        print(f"leaving without having asked for a requeue: {error}", flush=True)
        sys.exit(1)


def end_children() -> None:
    """End all descendants of this process: SLURM drains nodes on which processes are left over."""
    import psutil

    left = psutil.Process().children(recursive=True)
    for process in left:
        _signalled(process.terminate)
    _, stubborn = psutil.wait_procs(left, timeout=SECONDS_TO_END)
    for process in stubborn:
        _signalled(process.kill)


def _signalled(send: Callable[[], None]) -> None:
    import psutil

    try:
        send()
    except psutil.NoSuchProcess:
        return
