"""Where tasks run: the small surface that each kind of cluster fills in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from sparta.cluster.attempts import Attempt, AttemptDir, Watch
from sparta.phases.base import Phase


def _nobody(text: str) -> None:
    """Listens to nothing."""


class Launcher(ABC):
    """Starts the tasks of an attempt and knows which of them are still running; what they achieved is on disk."""

    name: ClassVar[str]
    survives: ClassVar[bool] = False
    """Whether tasks go on when the driver is asked to go."""
    look_seconds: ClassVar[float] = 0.25
    """How often a driver looks for rows and records of its tasks."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] = _nobody
        """Who is told what a person should know while tasks are started; a driver sets it."""

    @property
    def where(self) -> str:
        """In words, where tasks run."""
        return self.name

    @abstractmethod
    def tasks(self, phase: Phase) -> int:
        """The most tasks that `phase` is dealt to; see sparta/cluster/parallelism.py."""

    @abstractmethod
    def at_once(self, phase: Phase) -> int:
        """Most tasks of `phase` that run together."""

    @abstractmethod
    def takes(self, phase: Phase) -> bool:
        """Whether it runs tasks of `phase`; the others are done in the driver's own process."""

    def check(self, phases: Sequence[Phase]) -> None:
        """Raises SpartaError where tasks of `phases` could not be started from here."""
        return

    @abstractmethod
    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        """Start the tasks of `attempt`. `watch` is told of progress by tasks that run in this process."""

    @abstractmethod
    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        """Shards of `attempt` that are queued or running, also those that an earlier driver started."""

    def expected(self, attempts: AttemptDir) -> bool:
        """Whether jobs are queued that nothing has been dealt to yet, but will be, without a driver."""
        return False

    def waiting(self, attempts: AttemptDir) -> str:
        """Why tasks that have not begun do not begin, in words; nothing where none waits for long."""
        return ""

    def fates(self, attempts: AttemptDir, attempt: Attempt) -> Mapping[int, str]:
        """What became of shards that ended without saying so themselves, as far as it is known."""
        return {}

    @abstractmethod
    def interrupted(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """The driver is asked to go: end the tasks that should not outlive it."""
