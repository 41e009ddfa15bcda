"""A detached study: its driver is a small SLURM job, slurm/study.sh, which starts the cells."""

import subprocess

from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.submit import job_in
from sparta.commands.cancel import live_drivers
from sparta.commands.study_request import OpenStudy, StudyRequest
from sparta.errors import SpartaError
from sparta.names import SLURM, suggested
from sparta.screen import Screen
from sparta.store import files
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs, drivers_file
from sparta.store.lock import RunLock
from sparta.studies.estimate import launcher_of
from sparta.studies.manifest import freeze, manifest_of

SECONDS_TO_SUBMIT = 180.0


def detach(opened: OpenStudy, request: StudyRequest, screen: Screen) -> None:
    """Submit the driver of the study. Raises SpartaError where the study does not use SLURM, where sbatch refuses, or where a driver is queued or runs."""
    place, grid, where = opened.place, opened.grid, request.where
    first = grid.cells[0]
    launcher = launcher_of(first.recipe, where, place, first.name)
    if not isinstance(launcher, Slurm):
        raise SpartaError(
            f"--detach needs SLURM, and this study uses the cluster {launcher.name}: add --profile, or leave --detach out"
        )
    cli.require("sbatch")
    known = driver_jobs(place.lock)
    with cli.answering():
        if known and (live := live_drivers(known)):
            raise SpartaError(
                f"job {live[0].job} drives {place.root} already, or is queued to: see it with {suggested('study', place.root, '--status')}, end it with "
                "--cancel"
            )
    with RunLock(place.lock, screen.say):
        freeze(place, grid, opened.text)
        files.write_json(place.manifest, manifest_of(place, grid))
        shape, name = launcher.profile.shape("study", "cpu"), f"sparta-study-{grid.study.name}"
        options = {"partition": shape.partition, "account": shape.account, "qos": shape.qos}
        asked = [f"--{key}={value}" for key, value in options.items() if value]
        limit = ["--limit", str(request.limit)] if request.limit is not None else []
        command = [
            *("sbatch", "--parsable", f"--job-name={name}", f"--output={place.root}/study-%j.log", *asked),
            *(str(SLURM / "study.sh"), str(place.root), *where.options, *limit),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                cwd=SLURM.parent,
                timeout=SECONDS_TO_SUBMIT,
            )
        except subprocess.TimeoutExpired:
            raise SpartaError("sbatch did not answer: look with squeue whether the job is queued") from None
        if done.returncode != 0:
            raise SpartaError(
                f"sbatch refused the driver of the study ({done.stderr.strip()}): correct the profile"
            )
        if (said := job_in(done.stdout)) is None:
            raise SpartaError(
                f'sbatch did not say which job it queued: it printed "{" ".join(done.stdout.split())[:300]}"; end the job (squeue --me, scancel) and check '
                "the wrapper that prints it"
            )
        job, cluster = said
        drivers = [*known, DriverJob(job, name, cluster)]
        files.write_json(drivers_file(place.lock), DriverJobs(str(place.root), drivers))
    screen.say(
        f"Submitted job {job}, the driver of {len(grid.cells)} cells.\n"
        f"  check on it      {suggested('study', place.root, '--status')}\n"
        f"  cancel it        {suggested('study', place.root, '--cancel')}"
    )
