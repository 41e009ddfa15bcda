"""Runs every task in this process, so models stay loaded across phases. For laptops, tests, and steps that need no GPU."""

from collections.abc import Sequence

from sparta.cluster.attempts import Attempt, AttemptDir, Watch
from sparta.cluster.gpus import check_gpus_of_machine, visible_gpus
from sparta.cluster.launcher import Launcher
from sparta.cluster.task import run_task
from sparta.phases.base import Phase
from sparta.store.run import Run


class Inline(Launcher):
    name = "inline"
    keeps_engines = True

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def tasks(self, phase: Phase) -> int:
        return 1

    def at_once(self, phase: Phase) -> int:
        return 1

    def gpus(self, phase: Phase) -> int:
        """All of this machine: what one process cannot use is idle."""
        return len(visible_gpus())

    def takes(self, phase: Phase) -> bool:
        return True

    def check(self, phases: Sequence[Phase]) -> None:
        check_gpus_of_machine(self._run, phases)

    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        for shard in range(attempt.shards):
            run_task(self._run, attempt.piece, shard, watch)

    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        return []

    def interrupted(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """Nothing to do: the interrupt has ended the tasks."""
