"""Where tasks run: the small surface that each kind of cluster fills in."""

from collections.abc import Sequence
from typing import Protocol

from sparta.cluster.attempts import Attempt, AttemptDir, Watch


class Launcher(Protocol):
    """Starts the tasks of an attempt and knows which of them are still running; what they achieved is on disk."""

    name: str

    @property
    def tasks(self) -> int:
        """How many tasks a phase is dealt to."""
        ...

    def start(self, attempts: AttemptDir, attempt: Attempt, watch: Watch) -> None:
        """Start the tasks of `attempt`. `watch` is told of progress by tasks that run in this process."""
        ...

    def running(self, attempts: AttemptDir, attempt: Attempt) -> Sequence[int]:
        """Shards of `attempt` that are queued or running, also those that an earlier driver started."""
        ...

    def cancel(self, attempts: AttemptDir, attempt: Attempt) -> None:
        """End the tasks of `attempt`; their finished rows stay."""
        ...
