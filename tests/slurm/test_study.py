"""A study on SLURM: all cells together stay within one limit of GPUs, and none starves; a detached one goes on by itself."""

import subprocess
import threading
import time
from pathlib import Path

from support.scripted_run import launches, typed, wait_until
from support.study_runs import results, write_study

LIMIT = 8


class Watch:
    """The most GPU tasks that run at the same time, looked at again and again."""

    def __init__(self) -> None:
        self.most, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            shown = subprocess.run(
                ["squeue", "--noheader", "--array", "--states=R", "--format=%b"],
                capture_output=True,
                text=True,
            ).stdout
            self.most = max(self.most, sum("gpu" in line for line in shown.splitlines()))
            time.sleep(0.2)


def test_six_cells_stay_within_eight_gpus_and_all_of_them_work(devcluster: Path, tmp_path: Path) -> None:
    slow = {
        "combats": 40,
        "engine": {"kind": "scripted", "scripted": {"delay": 0.1}},
        "cluster": {"assumed": {"start_seconds": 0}},
    }
    path = write_study(tmp_path, {"seed": list(range(6))}, recipe=slow, limit=LIMIT, share=["adapters"])
    place = tmp_path / "study"
    with Watch() as watched, launches("study") as start:
        driver = start(path, "--state", place, "--profile", "devcluster")
        # Every cell has work in SLURM at the same time: none waits for another one's end.
        wait_until(lambda: len(begun(place)) == 6)
        assert not results(place)
        _, err = driver.communicate()
    assert driver.returncode == 0, err
    assert 1 < watched.most <= LIMIT


def begun(place: Path) -> list[Path]:
    """Cells that have rows of their first iteration."""
    return [cell for cell in place.glob("cells/*") if list(cell.glob("iter_01/responses/*.jsonl"))]


def test_a_detached_study_goes_on_by_itself_and_is_submitted_once(devcluster: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0, 1]}, limit=4)
    place = tmp_path / "study"
    given = (path, "--state", place, "--profile", "devcluster")
    done = typed("study", *given, "--detach")
    assert done.returncode == 0, done.stderr
    assert "Submitted job" in done.stdout
    again = typed("study", *given, "--detach")
    assert again.returncode == 1 and ("drives" in again.stderr or "driven" in again.stderr)
    wait_until(lambda: len(results(place)) == 2, 400)
    assert {result.error for result in results(place).values()} == {""}
