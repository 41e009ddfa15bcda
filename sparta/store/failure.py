"""jobs/failure.json: the error message of the last launch, for `status`; removed when a launch continues the run."""

from datetime import UTC, datetime

import msgspec

from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.run import Run


class LaunchFailure(msgspec.Struct, frozen=True):
    when: str
    said: str


def note_failure(state: StateDir, said: str) -> None:
    """Write down why a launch failed. Does nothing where there is no run yet."""
    if present(state.run_json):
        files.write_json(
            state.jobs / "failure.json", LaunchFailure(datetime.now(UTC).isoformat(timespec="seconds"), said)
        )


def forget_failure(state: StateDir) -> None:
    files.remove(state.jobs / "failure.json")


def last_failure(run: Run) -> LaunchFailure | None:
    return files.read_measured(run.state.jobs / "failure.json", LaunchFailure)
