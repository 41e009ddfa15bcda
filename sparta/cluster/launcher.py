"""Where tasks run: the interface that each kind of cluster implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from sparta.cluster.attempts import Attempt, AttemptDir, Watch
from sparta.phases.base import Phase


def _discard(text: str) -> None:
    """Ignores the message."""


class Launcher(ABC):
    """Starts the tasks of an attempt and knows which of them still run; their results are on disk."""

    name: ClassVar[str]
    survives: ClassVar[bool] = False
    """Whether tasks continue when the driver is interrupted."""
    keeps_engines: ClassVar[bool] = False
    """Whether a phase finds the engine open that the phase before it used."""
    poll_seconds: ClassVar[float] = 0.25
    """How often a driver checks the rows and records of its tasks, in seconds."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] = _discard
        """Prints messages for a person while tasks are started; the driver sets it."""

    @property
    def where(self) -> str:
        """Where tasks run, for a person."""
        return self.name

    @property
    def container(self) -> Sequence[str]:
        """The container of tasks and what it sees, for a person, in lines; empty where they run in none."""
        return ()

    @abstractmethod
    def tasks(self, phase: Phase) -> int:
        """The most tasks that `phase` is sharded into; see sparta/cluster/parallelism.py."""

    @abstractmethod
    def at_once(self, phase: Phase) -> int:
        """The most tasks of `phase` that run at the same time."""

    @abstractmethod
    def gpus(self, phase: Phase) -> int:
        """The most GPUs that tasks of `phase` may hold at the same time, whether that many have work or not."""

    @abstractmethod
    def takes(self, phase: Phase) -> bool:
        """Whether it runs tasks of `phase`; other phases run in the driver's process."""

    def check(self, phases: Sequence[Phase]) -> None:
        """Raises SpartaError where tasks of `phases` cannot be started from here."""
        return

    @abstractmethod
    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        """Start the tasks of `attempt`. Tasks that run in this process report progress to `watch`."""

    @abstractmethod
    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        """Shards of `attempt` that are queued or running, including those that an earlier driver started."""

    def has_unassigned_jobs(self, attempts: AttemptDir) -> bool:
        """Whether jobs of a detached launch are queued whose keys are not assigned yet."""
        return False

    def waiting(self, attempts: AttemptDir) -> str:
        """Why tasks do not start, for a person; empty where none waits for long."""
        return ""

    def end_states(self, attempts: AttemptDir, attempt: Attempt) -> Mapping[int, str]:
        """How shards ended that did not record their end, as far as it is known: by shard, for a person."""
        return {}

    @abstractmethod
    def interrupted(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """The driver was interrupted: end the tasks that must not outlive it."""
