"""squeue, asked seldom, believed for a while, and not given up on at its first silence."""

import time
from collections.abc import Sequence

from sparta.cluster.slurm import controller
from sparta.cluster.slurm.controller import Silent, Task
from sparta.errors import SpartaError

SECONDS_BETWEEN_TRIES = 2.0


class Queue:
    """What squeue says, at most `every` seconds old, or older while the controller is silent, for up to `patience` seconds."""

    def __init__(self, every: float, patience: float) -> None:
        self._every = every
        self._patience = patience
        self._known: dict[tuple[str, ...], tuple[float, list[Task]]] = {}
        self._heard = time.monotonic()
        self.silence = ""
        """What the controller's silence looks like, while it lasts."""

    def tasks(self, names: Sequence[str]) -> list[Task]:
        """Tasks of the jobs called `names`, those that ended minutes ago included. Raises SpartaError after too long a silence."""
        key = tuple(names)
        asked, known = self._known.get(key, (None, None))
        while asked is None or time.monotonic() - asked >= self._every:
            try:
                known = controller.tasks_named(key)
            except Silent as error:
                self._note_silence(str(error))
                if known is None:
                    time.sleep(SECONDS_BETWEEN_TRIES)
                    continue
            else:
                self._heard, self.silence = time.monotonic(), ""
            asked = time.monotonic()
            self._known[key] = (asked, known)
        return known or []

    def _note_silence(self, said: str) -> None:
        self.silence = said
        if time.monotonic() - self._heard > self._patience:
            raise SpartaError(
                f"SLURM has not answered for {self._patience / 60:.0f} min ({said}): jobs that run go on by themselves, and the same command "
                "finds them again when it answers"
            )
