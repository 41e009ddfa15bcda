"""Cancelling a run's tasks, wherever they were started; other runs are not affected."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparta.cluster.attempts import Attempt, AttemptDir
from sparta.cluster.local import Local
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.detached import chain_file, live_jobs
from sparta.methods.registry import is_phase, phase_at
from sparta.store import files
from sparta.store.baton import Holder
from sparta.store.driver_jobs import DriverJob, driver_jobs, drivers_file
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run

SECONDS_TO_STOP = 180.0
"""How long a driver job may take to release the run after scancel: longer than a lock without heartbeat needs to count as dead."""
POLL_SECONDS = 0.5


def cancel_all(run: Run) -> int:
    """End every task of `run` that is queued or running: SLURM's jobs, then processes of this machine. Returns how many there were."""
    live = live_jobs(run)
    with cli.answering():
        cli.cancel([task.job for task in live])
    # A detached launch that was cancelled on purpose is not a failed one: `status` must not report it.
    files.remove(chain_file(run.state))
    files.remove(drivers_file(run.state))
    local = Local(run)
    return len(live) + sum(local.cancel(attempts) for attempts in attempts_below(run, run.state.jobs))


def end_drivers(state: StateDir, say: Callable[[str], None]) -> None:
    """Cancel the batch jobs of slurm/ that drive the run or are queued to continue it, and wait until they are gone.

    Nothing is cancelled while another driver holds the run, even one in an allocation: its owner has to stop it. Raises SpartaError where SLURM
    does not answer.
    """
    drivers = driver_jobs(state)
    now = holder(state)
    alive = now is not None and now.alive
    if not drivers or not cli.installed() or (alive and not _holds(drivers, now)):
        return
    if now is not None and alive:
        say(f"Ending the driver, {now.claim}.")
    # The message above already named the job that holds the run.
    announced = {now.claim.driver_job} if now is not None and alive else set()
    deadline = time.monotonic() + SECONDS_TO_STOP
    with cli.answering():
        # A job that was requeueing itself may be back in the queue after its end, so ask again.
        while (live := live_drivers(drivers)) and time.monotonic() < deadline:
            cancellable = [task for task in live if task.state != "COMPLETING"]
            for task in cancellable:
                if not announced & {task.job, cli.number_of(task.job)}:
                    say(f"Ending job {task.job} ({task.name}), which was queued to continue this run.")
                    announced.add(task.job)
            cli.cancel([task.job for task in cancellable])
            time.sleep(POLL_SECONDS)
    while _holds(drivers, holder(state)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def attempts_below(run: Run, folder: Path) -> list[AttemptDir]:
    """Every attempt folder of `run` at or below `folder`, a folder in jobs/. Phases that only an earlier version had are left out."""
    # jobs/code holds files such as adapter_config.json: only a number makes aN.json an attempt.
    paths = sorted(path for path in folder.rglob("a*.json") if re.fullmatch(r"a\d+\.json", path.name))
    by_folder: dict[Path, Attempt | None] = {}
    for path in paths:
        by_folder[path.parent] = files.read_measured(path, Attempt) or by_folder.get(path.parent)
    found = (_attempts_in(run, place, attempt) for place, attempt in by_folder.items())
    return [attempts for attempts in found if attempts is not None]


def _attempts_in(run: Run, place: Path, attempt: Attempt | None) -> AttemptDir | None:
    """The attempts in the folder `place`, one of which is `attempt`; None where all its files are damaged and the folder's name fits no phase."""
    if attempt is not None:
        return attempt.piece.attempts(run) if is_phase(attempt.phase, attempt.spec) else None
    known = phase_at(place.relative_to(run.state.jobs).as_posix())
    return AttemptDir(run, *known) if known else None


def live_drivers(drivers: Sequence[DriverJob]) -> list[QueueEntry]:
    """The driver jobs that are queued or running. Raises SlurmUnavailable."""
    several = cli.several_clusters()
    names = {
        cli.job_on(driver.job, driver.cluster if driver.cluster in several else None): driver.name
        for driver in drivers
    }
    found = cli.tasks_named(names.values(), set(map(cli.cluster_of, names)))
    return [task for task in found if task.live and names.get(task.job) == task.name]


def _holds(drivers: Sequence[DriverJob], now: Holder | None) -> bool:
    """Whether one of `drivers` holds the lock."""
    if now is None or not now.alive:
        return False
    return any(
        driver.job == now.claim.driver_job and driver.cluster in (None, now.claim.slurm_cluster)
        for driver in drivers
    )
