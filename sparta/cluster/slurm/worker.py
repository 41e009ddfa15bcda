"""What runs inside a SLURM job: one shard of an attempt, or one after the other the steps between two phases of a detached launch.

submitit calls a `Work`, and its `checkpoint` when SLURM's signal has come: shortly before the time limit, or because somebody of higher
priority needs the node. The task is then requeued and continues its shard at the first missing key, a training at the update it was at.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from sparta.cluster.attempts import Piece
from sparta.cluster.gpu_time import measure
from sparta.cluster.parallelism import sharded
from sparta.cluster.task import leave_for_requeue, run_and_tell
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.store.disk import os_errors_in_words
from sparta.store.failure import forget_failure, last_failure, note_failure
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.preemption import postpone

SECONDS_TO_END = 5.0
"""What left-over child processes are given before they are killed."""


class ShardJob:
    """`pieces`, in order: the shard that the task is called with.

    deals: attempts whose keys are dealt out, to at most `tasks` shards, after the pieces, which make what they depend on. detached: no
    driver watches, so why a run stopped must be noted by the job itself.
    """

    def __init__(
        self,
        state: Path,
        pieces: tuple[Piece, ...],
        deals: tuple[Piece, ...] = (),
        tasks: int = 1,
        detached: bool = False,
    ) -> None:
        self.state, self.pieces, self.deals, self.tasks, self.detached = (
            str(state),
            pieces,
            deals,
            tasks,
            detached,
        )

    def __call__(self, shard: int, warning: float) -> None:
        """Do it. warning: seconds between SLURM's signal and the time limit, at least."""
        # The other half is for the requeue.
        with children_spared(warning / 2):
            try:
                with os_errors_in_words(Path(self.state)):
                    run = Run.open(StateDir(Path(self.state)))
                    for piece in self.pieces:
                        self._do(run, piece, shard)
                    for piece in self.deals:
                        assign_pieces(run, piece, self.tasks)
            except SpartaError as error:
                self._stop(self.pieces[0], shard, str(error))

    def checkpoint(self, shard: int, warning: float) -> Any:
        """submitit's hook: called before the requeue. Rows are on disk already."""
        import submitit

        leave_for_requeue()
        return submitit.helpers.DelayedSubmission(self, shard, warning)

    def _do(self, run: Run, piece: Piece, shard: int) -> None:
        attempt = piece.attempts(run).attempt(piece.number)
        if attempt is None:
            self._stop(
                piece, shard, "nothing has been dealt out to it: the job it depends on did not end well"
            )
        elif shard < attempt.shards:
            wrong = run_and_tell(run, piece, shard)
            if wrong is not None:
                self._stop(piece, shard, wrong)
            phases = phases_of(run.recipe, piece.t)
            if piece.phase == phases[-1].name:
                measure(run, phases, piece.t)
            self._forget(run, piece, shard)
        else:
            print(
                f"{piece.phase} of iteration {piece.t}: there is no shard {shard}, nothing to do", flush=True
            )

    def _stop(self, piece: Piece, shard: int, wrong: str) -> None:
        """End with an exit status that SLURM sees: what depends on this job is cancelled then."""
        print(f"this job ends here: {wrong}", flush=True)
        if self.detached:
            with suppress(SpartaError):  # of a disk that fails the log tells
                note_failure(StateDir(Path(self.state)), _named(piece, shard) + wrong)
        sys.exit(1)

    def _forget(self, run: Run, piece: Piece, shard: int) -> None:
        """An earlier start of this very task may have noted a failure, ended by SLURM in a way it took for an error."""
        noted = last_failure(run) if self.detached else None
        if noted is not None and noted.said.startswith(_named(piece, shard)):
            forget_failure(run.state)


def _named(piece: Piece, shard: int) -> str:
    return f"{piece.phase} of iteration {piece.t}, shard {shard}: "


def assign_pieces(run: Run, piece: Piece, tasks: int) -> None:
    """Deal the missing keys of a phase to at most `tasks` shards, under the reserved number; nothing where that has been done already."""
    attempts = piece.attempts(run)
    if attempts.attempt(piece.number) is None:
        phase = attempts.phase
        shards = sharded(run, phase, piece.t, phase.missing(run, piece.t), tasks)
        attempts.deal(shards, "slurm", piece.number)


@contextmanager
def children_spared(seconds_to_save: float = 0.0) -> Iterator[None]:
    """SLURM's signal goes to every process of the step. Children started in this block never get it, and none outlives the block.

    The signal is blocked in this thread, and so in whatever it starts, whichever way; one thread takes it and wakes the main thread with
    another. A library's thread that is older than this block may take it as well, which wakes nobody but leads to the same handler:
    submitit's, called once, however often SLURM repeats itself. A training is given so many seconds to save the update it is at before.
    """
    handler = signal.getsignal(signal.SIGUSR2)
    if not callable(handler):
        raise SpartaError(
            "a SLURM task was started without submitit's signal handler: start it through submitit"
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    main = threading.get_ident()
    leaving = False

    def leave(*_: object) -> None:
        nonlocal leaving
        if not leaving:
            leaving = True
            _leave(handler)

    def told(number: int, frame: FrameType | None) -> None:
        if leaving or not (seconds_to_save and postpone(leave)):
            leave()
        elif not signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, seconds_to_save)

    def pass_on() -> None:
        while True:
            signal.sigwait({signal.SIGUSR2})
            signal.pthread_kill(main, signal.SIGUSR1)

    signal.signal(signal.SIGUSR2, told)
    old = signal.signal(signal.SIGUSR1, told)
    signal.signal(signal.SIGALRM, leave)
    threading.Thread(target=pass_on, name="SLURM's signal", daemon=True).start()
    try:
        yield
    finally:
        leaving = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        end_children()
        # The thread goes on: a late signal of it must not meet the default action, which is to die.
        signal.signal(signal.SIGUSR1, old if callable(old) else signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have submitit requeue the task. Where it preempts, SLURM does that by itself, and may end or refuse submitit's scontrol."""
    try:
        handler(signal.SIGUSR2, None)
    except (subprocess.SubprocessError, OSError) as error:
        # If SLURM does not requeue it either, the task is gone from the queue, and its driver deals the rest out again.
        print(f"leaving without having asked for a requeue: {error}", flush=True)
        sys.exit(1)


def end_children() -> None:
    """End every process that this one has started, and theirs: what is left over on a node makes SLURM drain it."""
    import psutil

    left = psutil.Process().children(recursive=True)
    for process in left:
        _told(process.terminate)
    _, stubborn = psutil.wait_procs(left, timeout=SECONDS_TO_END)
    for process in stubborn:
        _told(process.kill)


def _told(tell: Any) -> None:
    import psutil

    try:
        tell()
    except psutil.NoSuchProcess:
        return
