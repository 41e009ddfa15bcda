"""Ending a run's tasks from outside, wherever they were started; and only this run's."""

import re
import time
from collections.abc import Callable

from sparta.cluster.attempts import Attempt, AttemptDir
from sparta.cluster.local import Local
from sparta.cluster.slurm import controller
from sparta.cluster.slurm.chain import chain_file, living_jobs
from sparta.cluster.slurm.controller import Silent
from sparta.errors import SpartaError
from sparta.methods.registry import phase_named
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run

SECONDS_TO_GO = 180.0
"""What a driver that is a job itself is given to let go of the run after scancel; a lock without heartbeat counts as dead after less."""


def cancel_all(run: Run) -> int:
    """End every task of `run` that is queued or running: SLURM's jobs, then processes of this machine. Returns how many there were."""
    living = living_jobs(run)
    if living:
        try:
            controller.cancel([task.job for task in living])
        except Silent as error:
            raise SpartaError(f"SLURM does not answer ({error}): try again when it does") from None
    # What is left of a detached launch was ended on purpose: `status` is not to call it broken.
    chain_file(run.state).unlink(missing_ok=True)
    # Among the jobs lies the code that they run, with adapters of its own: a number tells an attempt from adapter_config.json.
    folders = {
        path.parent: path
        for path in run.state.jobs.rglob("a*.json")
        if re.fullmatch(r"a\d+\.json", path.name)
    }
    local = Local(run)
    ended = len(living)
    for _, path in sorted(folders.items()):
        attempt = files.read_json(path, Attempt)
        ended += local.cancel(AttemptDir(run, phase_named(attempt.phase), attempt.t))
    return ended


def end_driver(state: StateDir, say: Callable[[str], None]) -> None:
    """Where a driver that is a SLURM job holds the run, end that job and wait until it has let go. Others are for their owner to stop."""
    now = holder(state)
    if now is None or not now.alive or now.claim.slurm_job_id is None:
        return
    say(f"Ending the driver, {now.claim}.")
    try:
        controller.cancel([now.claim.slurm_job_id])
    except Silent as error:
        raise SpartaError(f"SLURM does not answer ({error}): try again when it does") from None
    give_up = time.monotonic() + SECONDS_TO_GO
    while (there := holder(state)) is not None and there.alive and time.monotonic() < give_up:
        time.sleep(0.5)
