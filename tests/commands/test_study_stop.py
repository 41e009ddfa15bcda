"""Stopping the cells of a study: only processes of this machine are interrupted, and what one cell refuses stops no other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import sentence, typed
from support.study_runs import write_study

from sparta.commands.study_driver import end_cells
from sparta.store import files
from sparta.store.baton import FREE, HELD, claim_file, claim_of_this_process
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.process import ProcessId, identify, machine
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import CellProcess, process_of


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no cell, whose pid a cell of another machine may also have."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield process
    process.kill()
    process.wait()


def held_elsewhere(state: StateDir, pid: int) -> None:
    """Let a process of another machine hold the lock of `state`, with a heartbeat of this moment."""
    with RunLock(state, print):
        pass
    claim = msgspec.structs.replace(
        claim_of_this_process(), token="theirs", pid=pid, host="node7", machine="another boot"
    )
    files.write_json(claim_file(state.lock, "theirs"), claim)
    (state.lock / FREE).rename(state.lock / f"{HELD}theirs")


def runs_elsewhere(place: StudyDir, name: str, pid: int) -> None:
    held_elsewhere(place.cell(name), pid)
    files.make_folder(place.process(name).parent)
    files.write_json(place.process(name), CellProcess(ProcessId(pid, "another boot", 1), 1))


def test_a_process_of_another_machine_is_named_and_nobody_here_is_killed(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    place = StudyDir(tmp_path)
    runs_elsewhere(place, "far", stranger.pid)
    assert process_of(place, "far") is not None
    stopped = end_cells(place, ["far"])
    assert (stopped.here, stopped.elsewhere) == (0, {"far": "node7"})
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(timeout=0.3)


def test_a_process_of_this_machine_is_interrupted(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    place = StudyDir(tmp_path)
    files.make_folder(place.process("near").parent)
    files.write_json(place.process("near"), CellProcess(identify(stranger.pid), 1))
    stopped = end_cells(place, ["near"])
    assert (stopped.here, stopped.elsewhere) == (1, {})
    assert stranger.wait(timeout=5) < 0


def test_a_cell_that_cannot_be_cancelled_stops_no_other_and_keeps_its_note(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    path = write_study(tmp_path, {"seed": [0, 1]})
    place = StudyDir(tmp_path / "study")
    assert typed("study", path, "--state", place.root).returncode == 0
    runs_elsewhere(place, "seed0", stranger.pid)
    # seed1 was killed: its note is left.
    files.write_json(place.process("seed1"), CellProcess(ProcessId(stranger.pid, machine(), 1), 1))
    said = sentence(typed("study", place.root, "--cancel"))
    assert "1 of 3 cells could not be cancelled" in said and "seed0: " in said and "on node7" in said
    assert stranger.poll() is None
    assert place.process("seed0").exists() and not place.process("seed1").exists()
