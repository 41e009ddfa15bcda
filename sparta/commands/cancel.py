"""Ending a run's tasks from outside, wherever they were started; and only this run's."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparta.cluster.attempts import Attempt, AttemptDir
from sparta.cluster.local import Local
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.detached import chain_file, living_jobs
from sparta.methods.registry import is_phase, phase_at
from sparta.store import files
from sparta.store.driver_jobs import DriverJob, driver_jobs, drivers_file
from sparta.store.layout import StateDir
from sparta.store.lock import Holder, holder
from sparta.store.run import Run

SECONDS_TO_GO = 180.0
"""What a driver that is a job itself is given to let go of the run after scancel; a lock without heartbeat counts as dead after less."""
SECONDS_BETWEEN_LOOKS = 0.5


def cancel_all(run: Run) -> int:
    """End every task of `run` that is queued or running: SLURM's jobs, then processes of this machine. Returns how many there were."""
    living = living_jobs(run)
    with cli.answering():
        cli.cancel([task.job for task in living])
    # What is left of a detached launch was ended on purpose: `status` is not to call it broken.
    files.remove(chain_file(run.state))
    files.remove(drivers_file(run.state))
    local = Local(run)
    return len(living) + sum(local.cancel(attempts) for attempts in attempts_below(run, run.state.jobs))


def end_drivers(state: StateDir, say: Callable[[str], None]) -> None:
    """End the batch jobs of slurm/ that drive the run or wait in the queue to go on with it, and wait until they are gone.

    Nothing is ended where another driver holds the run, be it in an allocation: that one is for its owner to stop. Raises SpartaError where
    SLURM does not answer.
    """
    drivers = driver_jobs(state)
    now = holder(state)
    alive = now is not None and now.alive
    if not drivers or not cli.installed() or (alive and not _holds(drivers, now)):
        return
    if now is not None and alive:
        say(f"Ending the driver, {now.claim}.")
    # Of the job that holds the run it is said already.
    told = {now.claim.driver_job} if now is not None and alive else set()
    give_up = time.monotonic() + SECONDS_TO_GO
    with cli.answering():
        # One that was about to requeue itself may be back in the queue after its end.
        while (living := _living(drivers)) and time.monotonic() < give_up:
            there = [task for task in living if task.state != "COMPLETING"]
            for task in there:
                if not told & {task.job, cli.number_of(task.job)}:
                    say(f"Ending job {task.job} ({task.name}), which was to go on with this run.")
                    told.add(task.job)
            cli.cancel([task.job for task in there])
            time.sleep(SECONDS_BETWEEN_LOOKS)
    while _holds(drivers, holder(state)) and time.monotonic() < give_up:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def attempts_below(run: Run, folder: Path) -> list[AttemptDir]:
    """Every folder of attempts of `run` at or below `folder`, which lies below jobs/; not of what an earlier version called a phase."""
    # Among the jobs lies the code that they run, with adapters of its own: a number tells an attempt from adapter_config.json.
    paths = sorted(path for path in folder.rglob("a*.json") if re.fullmatch(r"a\d+\.json", path.name))
    dealt: dict[Path, Attempt | None] = {}
    for path in paths:
        dealt[path.parent] = files.read_measured(path, Attempt) or dealt.get(path.parent)
    found = (_attempts_in(run, place, attempt) for place, attempt in dealt.items())
    return [attempts for attempts in found if attempts is not None]


def _attempts_in(run: Run, place: Path, attempt: Attempt | None) -> AttemptDir | None:
    """The attempts in the folder `place`, one of which is `attempt`; where all their files are damaged the folder's name tells whose they are."""
    if attempt is not None:
        return attempt.piece.attempts(run) if is_phase(attempt.phase, attempt.spec) else None
    known = phase_at(place.relative_to(run.state.jobs).as_posix())
    return AttemptDir(run, *known) if known else None


def _living(drivers: Sequence[DriverJob]) -> list[QueueEntry]:
    """Those of the jobs that are queued or running. Raises SlurmUnavailable."""
    several = cli.several_clusters()
    names = {
        cli.job_on(driver.job, driver.cluster if driver.cluster in several else None): driver.name
        for driver in drivers
    }
    found = cli.tasks_named(names.values(), set(map(cli.cluster_of, names)))
    return [task for task in found if task.live and names.get(task.job) == task.name]


def _holds(drivers: Sequence[DriverJob], now: Holder | None) -> bool:
    """Whether the lock is in the hands of one of `drivers`."""
    if now is None or not now.alive:
        return False
    return any(
        driver.job == now.claim.driver_job and driver.cluster in (None, now.claim.slurm_cluster)
        for driver in drivers
    )
