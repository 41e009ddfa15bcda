"""The SLURM batch jobs that drive a run, or are queued to continue it."""

import errno
from pathlib import Path

import msgspec

from sparta.store.files import read_measured
from sparta.store.layout import StateDir


class DriverJob(msgspec.Struct, frozen=True):
    """A batch job of slurm/ that has driven the run and may be queued to continue it. SLURM reuses ids, so the job's name is kept as well.

    cluster: the name of its cluster; None where an earlier version noted the job.
    """

    job: str
    name: str
    cluster: str | None = None


class DriverJobs(msgspec.Struct, frozen=True):
    """jobs/drivers.json: the driver jobs that have not completed. Advisory: only SLURM knows which of them are live.

    state: the state directory that they drive; the file does not apply to a copy of that directory.
    """

    state: str
    jobs: list[DriverJob]


def drivers_file(state: StateDir) -> Path:
    return state.jobs / "drivers.json"


def driver_jobs(state: StateDir) -> list[DriverJob]:
    """The batch jobs that have driven the run in `state` and may still run or be queued; none in a copy of the state."""
    noted = read_measured(drivers_file(state), DriverJobs)
    return noted.jobs if noted and same_folder(Path(noted.state), state.root) else []


def same_folder(one: Path, other: Path) -> bool:
    """Whether both paths are the same folder, also through links and other mounts. A name that no file can have is none."""
    try:
        return one.is_dir() and other.is_dir() and one.samefile(other)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
