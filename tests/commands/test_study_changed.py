"""A study that is changed while cells of a killed driver go on: these are run again with what is asked now."""

import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import Launched, launches, typed, wait_until
from support.study_runs import rewritten, write_study

from sparta.commands.study import ExitStatus, _ended
from sparta.screen import Screen
from sparta.store.layout import StateDir
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import read_manifest

SLOW = {"engine": {"kind": "scripted", "scripted": {"delay": 0.05}}}


@pytest.fixture
def started() -> Iterator[Launched]:
    with launches("study") as start:
        yield start


def begun(place: Path, name: str) -> bool:
    return (place / "cells" / name / "run.json").is_file() and (place / "running" / f"{name}.json").is_file()


def test_more_iterations_reach_cells_that_a_killed_driver_left(tmp_path: Path, started: Launched) -> None:
    path = write_study(tmp_path, {"seed": [0]}, recipe=SLOW)
    place = tmp_path / "study"
    driver = started(path, "--state", place)
    wait_until(lambda: begun(place, "seed0"))
    driver.kill()
    driver.wait()
    rewritten(path, set={"iterations": 2})
    driver = started(path, "--state", place)
    out, err = driver.communicate()
    assert driver.returncode == 0, err
    assert (
        "1 cells of an earlier driver still run" in out and "before it was changed; starting it again" in out
    )
    assert StateDir(place / "cells" / "seed0").last_committed() == 2


def test_only_cells_that_did_what_is_asked_now_are_counted_as_done(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0]})
    place = tmp_path / "study"
    assert typed("study", path, "--state", place).returncode == 0
    manifest = read_manifest(StudyDir(place))
    assert _ended(manifest, StudyDir(place), Screen()) is ExitStatus.DONE
    waiting = msgspec.structs.replace(
        manifest, cells=[msgspec.structs.replace(manifest.cells[0], state="waiting")]
    )
    assert _ended(waiting, StudyDir(place), Screen()) is ExitStatus.IN_PROGRESS


def test_an_interrupt_after_a_change_keeps_the_result_of_a_cell_that_was_done(
    tmp_path: Path, started: Launched
) -> None:
    path = write_study(tmp_path, {"seed": [0]})
    place = StudyDir(tmp_path / "study")
    assert typed("study", path, "--state", place.root).returncode == 0
    before = place.result("seed0").read_bytes()
    write_study(tmp_path, {"seed": [0]}, recipe={"engine": {"kind": "scripted", "scripted": {"delay": 0.2}}})
    rewritten(path, set={"iterations": 3})
    driver = started(path, "--state", place.root)
    wait_until(lambda: place.process("seed0").is_file())
    driver.send_signal(signal.SIGINT)
    driver.communicate()
    assert place.result("seed0").read_bytes() == before
    [cell] = read_manifest(place).cells
    assert cell.state == "waiting" and cell.result is not None and cell.result.choices
