"""Which batch jobs of SLURM drive a run, or wait in the queue to go on with it."""

from pathlib import Path

import msgspec

from sparta.store.files import read_measured
from sparta.store.layout import StateDir


class DriverJob(msgspec.Struct, frozen=True):
    """A batch job of slurm/ that has driven the run, and may be in the queue to go on with it. Ids are given out again; the name is of the job too.

    cluster: the one that has it, as it calls itself; None where an earlier version noted the job.
    """

    job: str
    name: str
    cluster: str | None = None


class DriverJobs(msgspec.Struct, frozen=True):
    """jobs/drivers.json: those that have not come to an end of their own. Advisory: which of them live, SLURM says.

    state: the state directory that they drive. A copy of it, with the file in it, is another one.
    """

    state: str
    jobs: list[DriverJob]


def drivers_file(state: StateDir) -> Path:
    return state.jobs / "drivers.json"


def driver_jobs(state: StateDir) -> list[DriverJob]:
    """Batch jobs that have driven the run in `state` and may be running or waiting to go on with it; none in a copy of the state."""
    noted = read_measured(drivers_file(state), DriverJobs)
    return noted.jobs if noted and same_folder(Path(noted.state), state.root) else []


def same_folder(one: Path, other: Path) -> bool:
    """Whether both are one folder, by whatever ways: links, other mounts."""
    return one.is_dir() and other.is_dir() and one.samefile(other)
