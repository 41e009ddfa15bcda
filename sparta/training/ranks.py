"""A training over several GPUs of one node: its processes, one a GPU, under one that watches them.

The process of the task is no rank itself. It starts the ranks, passes on what rank 0 reports and a request to stop, and ends all of them when
one fails: a rank that waits for a dead one on a GPU would wait for minutes, and not notice a signal.
"""

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparta.engines.factory import count_load, loads_so_far
from sparta.engines.stopwatch import TRAIN, doing
from sparta.engines.vllm.child_process import end_with_parent
from sparta.engines.weight_files import BYTES_OF_TYPE, TORCH_TYPES, tensors_in, weight_files
from sparta.errors import SpartaError
from sparta.training import preemption
from sparta.training.job import Progress, TrainingJob, TrainingReport
from sparta.training.loading import resolve_device, resolve_dtype

if TYPE_CHECKING:
    from sparta.training.dpo import Finished, ProgressOf, Start

_BEGUN, _UPDATING, _PROGRESS, _FINISHED, _FAILED, _ENDED = (
    "begun",
    "updating",
    "progress",
    "finished",
    "failed",
    "ended",
)
"""What ranks report. All but `_FAILED` is rank 0's."""
_KEPT_FROM_RANKS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2}
"""Ctrl-C and SLURM's signals go to every process, and are for the process of the task alone: it passes a request to stop on, and kills the ranks."""
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 2.0
"""How long to wait, after a rank has failed, for the reports of others: the first to notice need not be the cause."""


def train_over_ranks(
    starts: "Sequence[Start]", at_once: int, size: int, progress: "ProgressOf", finished: "Finished"
) -> None:
    """What `sparta.training.dpo.train_members` does with `starts`, in `size` processes. Raises SpartaError where there are fewer GPUs, or too little
    memory for their copies of the base, or where a rank dies.
    """
    import psutil

    job = starts[0].job
    device = resolve_device(job.device)
    check_gpus(device, size)
    check_memory(job.base, resolve_dtype(job.dtype, device), size, psutil.virtual_memory().available)
    with (
        tempfile.TemporaryDirectory(prefix="sparta-ranks-") as folder,
        preemption.postponable(),
        _started(_Work(list(starts), at_once, size, device, Path(folder) / "store")) as ranks,
        ExitStack() as training,
    ):
        notified = {start.job.out: progress(start.job) for start in starts}
        jobs = {start.job.out: start.job for start in starts}
        is_updating = False
        # While the base is loaded, or a reference is read, there is nothing to save.
        while is_updating or not preemption.requested():
            for what, *given in _news(ranks):
                if what == _BEGUN:
                    training.enter_context(doing(TRAIN))
                    count_load(*given)
                elif what == _UPDATING:
                    [is_updating] = given
                elif what == _PROGRESS:
                    out, *numbers = given
                    notified[out](*numbers)
                    # If it has died meanwhile, the next news say so.
                    with suppress(BrokenPipeError):
                        ranks[0].pipe.send(preemption.requested())
                elif what == _FINISHED:
                    out, report = given
                    finished(jobs[out], report)
                else:
                    return


def check_gpus(device: str, size: int) -> None:
    """Raises SpartaError where this process sees fewer than `size` GPUs, if the training is on GPUs."""
    import torch

    if device == "cuda" and (there := torch.cuda.device_count()) < size:
        raise SpartaError(
            f"cluster.gpus_per_training is {size}, and a training here has {there} GPU{'s' * (there != 1)}: lower it, or give the task more"
        )


def check_memory(base: str, dtype: str, size: int, available: int) -> None:
    """Raises SpartaError where `size` processes that each convert the weights of `base` (a folder) to `dtype` need more than `available` bytes.

    Weights that have the type already are mapped from their files, and count for nothing.
    """
    tensors = [tensor for file in weight_files(Path(base)) for tensor in tensors_in(file).values()]
    converted = [tensor for tensor in tensors if TORCH_TYPES.get(tensor.dtype, dtype) != dtype]
    needed = size * BYTES_OF_TYPE[dtype] * sum(prod(tensor.shape) for tensor in converted)
    if needed > available:
        raise SpartaError(
            f"base {base} is stored in {TORCH_TYPES[converted[0].dtype]} and trained in {dtype}, so each of the {size} processes of cluster.gpus_per_training makes a copy, "
            f"{needed / 2**30:.3g} GiB in all, and this machine has {available / 2**30:.3g} GiB of memory left: save the base in {dtype}, "
            "set engine.dtype to the type it is stored in, or give the task more memory"
        )


@dataclass(frozen=True)
class _Work:
    """What all ranks are given. size: their number. store: a file that all of them can reach."""

    starts: "Sequence[Start]"
    at_once: int
    size: int
    device: str
    store: Path


@dataclass(frozen=True)
class _Child:
    """A rank, as the process that watches it has it."""

    process: SpawnProcess
    pipe: "connection.Connection[Any, Any]"


@contextmanager
def _started(work: _Work) -> Iterator[list[_Child]]:
    """The ranks; none of them lives after this block."""
    spawn = get_context("spawn")
    children: list[_Child] = []
    try:
        # Its start, which comes with the first process of Python otherwise, unblocks signals.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEPT_FROM_RANKS)
        try:
            for rank in range(work.size):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(
                    target=_live,
                    args=(rank, work, theirs),
                    name=f"rank {rank}",
                    daemon=True,
                )
                process.start()
                theirs.close()
                children.append(_Child(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield children
    finally:
        for child in children:
            child.process.kill()
        for child in children:
            child.process.join()
            child.pipe.close()


def _news(ranks: Sequence[_Child]) -> Iterator[tuple[Any, ...]]:
    """What rank 0 reports next, if anything comes soon. Raises what a rank has failed with."""
    connection.wait(
        [waited for rank in ranks for waited in (rank.pipe, rank.process.sentinel)], _POLL_SECONDS
    )
    failures = []
    for rank in ranks:
        for what, *given in _received(rank):
            if what == _FAILED:
                failures.append(given[0])
            else:
                yield (what, *given)
        if rank.process.exitcode is not None:
            failures.append(None)
    if failures:
        _raise_cause(ranks, [failure for failure in failures if failure is not None])


def _received(rank: _Child) -> Iterator[tuple[Any, ...]]:
    try:
        while rank.pipe.poll():
            yield rank.pipe.recv()
    except (EOFError, OSError):
        return


def _raise_cause(ranks: Sequence[_Child], failures: list[BaseException]) -> None:
    """Raise the failure that the others follow from: an error with its remedy, or the end of a killed rank, before the reports of ranks that only noticed it."""
    deadline = time.monotonic() + _GRACE_SECONDS
    known = any(isinstance(failure, SpartaError) for failure in failures)
    while not known and time.monotonic() < deadline and any(rank.process.exitcode is None for rank in ranks):
        connection.wait([rank.process.sentinel for rank in ranks if rank.process.exitcode is None], 0.1)
    for rank in ranks:
        failures += [given[0] for what, *given in _received(rank) if what == _FAILED]
    for failure in failures:
        if isinstance(failure, SpartaError):
            raise failure
    for number, rank in enumerate(ranks, 1):
        code = rank.process.exitcode or 0
        if code < 0 and code != -signal.SIGABRT:
            raise SpartaError(
                f"process {number} of the {len(ranks)} of this training was killed ({signal.Signals(-code).name}), perhaps because memory ran out: "
                "launch the run again to continue from the last checkpoint"
            )
    if failures:
        raise failures[0]
    codes = ", ".join(str(rank.process.exitcode) for rank in ranks)
    raise SpartaError(
        f"a process of this training ended by itself (exit statuses: {codes}); its log says more"
    )


class _Left(BaseException):
    """Rank 0 has saved its update and goes."""


def _leave() -> None:
    raise _Left


def _live(rank: int, work: _Work, pipe: "connection.Connection[Any, Any]") -> None:
    """The life of a rank."""
    end_with_parent()
    report = _Reporter(pipe)
    try:
        with suppress(_Left):
            _train(rank, work, report)
        if rank == 0:
            report(_ENDED)
    except BaseException as error:
        report(_FAILED, _portable(error))
    # The process of the task ends this one; by itself it could wait for ranks that are gone.
    threading.Event().wait()


def _train(rank: int, work: _Work, report: "_Reporter") -> None:
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    from sparta.training import dpo
    from sparta.training.sharded import Team

    # Its own lock is a semaphore of the system, which a killed process leaves behind.
    tqdm.set_lock(threading.RLock())
    if work.device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // work.size))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    team = Team(rank, work.size, work.device, work.store)
    dpo.train_group_by_group(
        work.starts, work.at_once, report.progress, report.finished, team, report.updating
    )


class _Reporter:
    """What a rank reports to the process of the task."""

    def __init__(self, pipe: "connection.Connection[Any, Any]") -> None:
        self._pipe, self._has_begun = pipe, False

    def __call__(self, what: str, *given: Any) -> None:
        self._pipe.send((what, *given))

    def progress(self, job: TrainingJob) -> Progress:
        """Called when the training of `job` begins."""
        if not self._has_begun:
            self._has_begun = True
            self(_BEGUN, loads_so_far().seconds)
        return lambda *numbers: self._progress(job, numbers)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """In this block a group of jobs is updated, and a request to stop waits until it is saved."""
        self(_UPDATING, True)
        with preemption.postponable():
            yield
        self(_UPDATING, False)

    def _progress(self, job: TrainingJob, numbers: tuple[int, int, float | None]) -> None:
        """The answer says whether this rank is to save its update and go."""
        self(_PROGRESS, job.out, *numbers)
        if self._pipe.recv():
            preemption.postpone(_leave)

    def finished(self, job: TrainingJob, report: TrainingReport) -> None:
        self(_FINISHED, job.out, report)


def _portable(error: BaseException) -> BaseException:
    """`error` as it can be sent, with where it came from: SpartaError and OSError stay what they are."""
    made: BaseException
    if isinstance(error, SpartaError):
        made = SpartaError(str(error))
    elif isinstance(error, OSError) and error.errno is not None:
        made = OSError(error.errno, error.strerror, error.filename)
    else:
        made = RuntimeError(f"{type(error).__name__}: {error}")
    made.add_note("".join(traceback.format_exception(error)))
    return made
