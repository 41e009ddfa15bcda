"""Cached answers of squeue that tolerate a controller that does not answer for a while."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.cluster.attempts import AttemptDir, with_alternatives
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry, SlurmUnavailable
from sparta.cluster.slurm.job_ids import Jobs, all_jobs, names_and_places, of_this_state
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.store.layout import StateDir
from sparta.store.run import Run

SECONDS_BETWEEN_TRIES = 2.0
USUAL = ("None", "", "JobArrayTaskLimit", "Dependency")
"""Reasons for waiting that are not reported: the suite itself causes them."""


class Queue:
    """Answers of squeue, at most `every` seconds old; older while the controller does not answer, for up to `patience` seconds."""

    def __init__(self, every: float, patience: float) -> None:
        self._every = every
        self._patience = patience
        self._known: dict[tuple[frozenset[str], frozenset[str | None]], tuple[float, list[QueueEntry]]] = {}
        self._answered = time.monotonic()
        self.silence = ""
        """Why the controller does not answer; empty while it does."""

    def tasks(self, of: Iterable[Jobs]) -> list[QueueEntry]:
        """Tasks of these jobs, including tasks that ended minutes ago. Raises SpartaError after `patience` seconds without an answer."""
        key = names_and_places(of)
        asked, known = self._known.get(key, (None, None))
        while asked is None or time.monotonic() - asked >= self._every:
            try:
                known = cli.tasks_named(*key)
            except SlurmUnavailable as error:
                self._note_silence(str(error))
                if known is None:
                    time.sleep(SECONDS_BETWEEN_TRIES)
                    continue
            else:
                self._answered, self.silence = time.monotonic(), ""
            asked = time.monotonic()
            self._known[key] = (asked, known)
        return known or []

    def _note_silence(self, reason: str) -> None:
        self.silence = reason
        if time.monotonic() - self._answered > self._patience:
            raise SpartaError(
                f"SLURM has not answered for {self._patience / 60:.0f} min ({reason}): running jobs continue without the driver; run the same "
                "command again when SLURM answers"
            )


@dataclass(frozen=True)
class QueueSnapshot:
    """The SLURM jobs of a run's unfinished iterations, by folder and number of their attempt, and squeue's entries for them.

    tasks: entries by job name. silence: why squeue did not answer; None if it did.
    """

    jobs: Mapping[tuple[Path, int], Jobs]
    tasks: Mapping[str, Sequence[QueueEntry]]
    silence: str | None = None

    def numbers(self, attempts: AttemptDir) -> list[int]:
        """Numbers of attempts with submitted jobs, including attempts whose keys are not assigned yet."""
        return sorted(number for folder, number in self.jobs if folder == attempts.folder)

    def of(self, attempts: AttemptDir, number: int) -> dict[int, QueueEntry]:
        """squeue's entries for attempt `number`, by shard."""
        jobs = self.jobs.get((attempts.folder, number))
        return jobs.by_shard(task for name in jobs.names for task in self.tasks.get(name, ())) if jobs else {}

    @property
    def live(self) -> list[QueueEntry]:
        """Jobs of the run that are queued or running."""
        return [task for found in self.tasks.values() for task in found if task.live]


def ask(run: Run, committed: set[int]) -> QueueSnapshot:
    """Call squeue once, for the jobs of all iterations that are not committed."""
    folders = [
        AttemptDir(run, phase, t)
        # jobs/ has a folder for an iteration, too
        for t in StateDir(run.state.jobs).iterations()
        if t not in committed
        for phase in with_alternatives(run, phases_of(run.recipe, t), t)
    ]
    jobs = {
        (attempts.folder, number): found
        for attempts in folders
        for number, found in all_jobs(attempts).items()
    }
    if not jobs:
        return QueueSnapshot({}, {})
    if not cli.installed():
        return QueueSnapshot(jobs, {}, "its commands are not on PATH here")
    tasks: dict[str, list[QueueEntry]] = {}
    try:
        known = cli.tasks_named(*names_and_places(jobs.values()))
        for task in of_this_state(run.state.code, known):
            tasks.setdefault(task.name, []).append(task)
    except (SlurmUnavailable, SpartaError) as error:
        return QueueSnapshot(jobs, {}, str(error))
    return QueueSnapshot(jobs, tasks)


def reasons_in_words(tasks: Sequence[QueueEntry]) -> str:
    """Why tasks wait: "3 tasks wait (Priority), 1 task waits (Resources)"."""
    reasons = Counter(task.reason for task in tasks if task.state == "PENDING" and task.reason not in USUAL)
    return ", ".join(
        f"{count} task{'s wait' if count > 1 else ' waits'} ({reason})"
        for reason, count in sorted(reasons.items())
    )
