"""Processes on this machine, through submitit's local executor: one task for each GPU (or tensor-parallel group), or a few on the cores of a
machine without GPUs.

submitit starts every task at once, so the limit on tasks at a time is kept here. Tasks survive a killed driver: the next one finds them by
process id and start time, and waits for them instead of repeating their work.
"""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sparta.cluster.attempts import Attempt, AttemptDir, Watch
from sparta.cluster.gpus import check_machine, visible_gpus
from sparta.cluster.launcher import Launcher
from sparta.cluster.task import main
from sparta.phases.base import Phase
from sparta.store import files
from sparta.store.process import ProcessId, identify, lives
from sparta.store.run import Run

NO_LIMIT_MINUTES = 60 * 24 * 365


class Local(Launcher):
    name = "local"

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._waiting: deque[int] = deque()
        self._slots: dict[int, int] = {}

    def at_once(self, phase: Phase) -> int:
        shared = len(self._gpus(phase)) or max(1, (os.cpu_count() or 1) // 2)
        return self._run.recipe.cluster.at_once or shared

    def gpus(self, phase: Phase) -> int:
        at_once = self._run.recipe.cluster.at_once
        visible = len(visible_gpus())
        return visible if at_once is None else min(visible, at_once * phase.gpus(self._run.recipe))

    def tasks(self, phase: Phase) -> int:
        return self._run.recipe.cluster.tasks or self.at_once(phase)

    def _gpus(self, phase: Phase) -> list[str]:
        """CUDA_VISIBLE_DEVICES for each task of `phase` that runs at the same time: the GPUs that hold one base. Empty where it needs none."""
        gpus, together = visible_gpus(), phase.gpus(self._run.recipe)
        if together == 0:
            return []
        return [
            ",".join(gpus[first : first + together]) for first in range(0, len(gpus) - together + 1, together)
        ]

    def takes(self, phase: Phase) -> bool:
        return phase.device == "gpu"

    def check(self, phases: Sequence[Phase]) -> None:
        check_machine(self._run, phases)

    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        self._waiting = deque(range(attempt.shards))
        self._slots = {}
        self._fill(attempts, attempt)

    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        if self._waiting:
            self._fill(attempts, attempt)
        return [*self._alive(attempts, attempt), *self._waiting]

    def interrupted(self, attempts: AttemptDir, attempt: Attempt) -> None:
        self._waiting.clear()
        self._end(attempts, attempt)

    def cancel(self, attempts: AttemptDir) -> int:
        """End all tasks of these attempts, whichever driver started them; finished rows stay. Returns the number of tasks ended."""
        return sum(self._end(attempts, attempt) for attempt in attempts.all() if attempt.cluster == self.name)

    def _end(self, attempts: AttemptDir, attempt: Attempt) -> int:
        """End the processes of `attempt`. Returns their number."""
        ended = 0
        for shard in range(attempt.shards):
            process = _process(attempts, attempt, shard)
            record = attempts.record(attempt.number, shard)
            if process is None:
                continue
            ended += 1
            with suppress(ProcessLookupError):
                if record is not None and record.alive:
                    os.kill(record.process.pid, signal.SIGINT)
                else:
                    # Still starting: the interrupt takes effect once the task unblocks it, or the task never starts.
                    for pid in _children(process.pid):
                        os.kill(pid, signal.SIGINT)
                    os.kill(process.pid, signal.SIGTERM)
        return ended

    def _alive(self, attempts: AttemptDir, attempt: Attempt) -> list[int]:
        return [shard for shard in range(attempt.shards) if _process(attempts, attempt, shard) is not None]

    def _fill(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """Start waiting shards while slots are free."""
        import submitit

        gpus, at_once = self._gpus(attempts.phase), self.at_once(attempts.phase)
        alive = set(self._alive(attempts, attempt))
        self._slots = {shard: slot for shard, slot in self._slots.items() if shard in alive}
        while self._waiting and len(alive) < at_once:
            shard = self._waiting.popleft()
            slot = min(set(range(at_once)) - set(self._slots.values()))
            # submitit's pickles: no other user may read or replace them.
            attempts.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
            executor = submitit.LocalExecutor(attempts.logs)
            executor.update_parameters(
                timeout_min=NO_LIMIT_MINUTES,
                stderr_to_stdout=True,
            )
            gpu = gpus[slot % len(gpus)] if gpus else ""
            with _threads_shared(at_once), _sigint_blocked():
                job = executor.submit(main, str(self._run.state.root.resolve()), attempt.piece, shard, gpu)
            files.write_json(_process_file(attempts, attempt, shard), identify(int(job.job_id)))
            self._slots[shard] = slot
            alive.add(shard)


@contextmanager
def _threads_shared(tasks: int) -> Iterator[None]:
    """Child processes started in this block share the cores instead of each using all of them."""
    name, before = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS")
    if before is None:
        os.environ[name] = str(max(1, (os.cpu_count() or 1) // tasks))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Child processes started in this block ignore Ctrl-C: it is for the driver, which ends them itself (`cancel`).

    submitit's process between driver and task would print a traceback. Tasks unblock the signal, see `task.main`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _process(attempts: AttemptDir, attempt: Attempt, shard: int) -> ProcessId | None:
    """The live process of a shard: submitit's controller, whose end ends the task, or the task if it outlived the controller."""
    controller = files.read_measured(_process_file(attempts, attempt, shard), ProcessId)
    if controller is not None and lives(controller):
        return controller
    record = attempts.record(attempt.number, shard)
    return record.process if record is not None and record.alive else None


def _children(pid: int) -> list[int]:
    """Live child processes of `pid`; none where /proc does not list them."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _process_file(attempts: AttemptDir, attempt: Attempt, shard: int) -> Path:
    return attempts.folder / f"a{attempt.number}-{shard:05d}.process"
