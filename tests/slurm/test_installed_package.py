"""A run on SLURM from an installed wheel, without a checkout: driver job, arrays, and the copy of the code that they run."""

import os
import subprocess
from pathlib import Path

import pytest
from support.built_wheel import build_wheel, install, run_outside
from support.scripted_run import DEADLINE, manifests, typed, wait_until, write_recipe

from sparta.store.layout import StateDir


def test_the_scripts_of_a_wheel_drive_a_run_to_what_the_checkout_commits(
    tmp_path: Path, devcluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, work = write_recipe(tmp_path, iterations=1), tmp_path / "work"
    assert typed("launch", "--recipe", recipe, "--state", tmp_path / "here").returncode == 0
    for folder in (work, tmp_path / "wheel"):
        folder.mkdir()
    binaries = install(build_wheel(tmp_path / "wheel"), tmp_path / "environment")
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    put = run_outside([binaries / "sparta", "scripts"], cwd=work)
    assert put.returncode == 0, put.stderr
    log = tmp_path / "log"
    sbatch = ["sbatch", "--parsable", "-p", "cpu", f"--output={log}", "slurm/launch.sh"]
    submitted = subprocess.run(
        [*sbatch, "--recipe", recipe, "--profile", "devcluster"],
        capture_output=True,
        text=True,
        cwd=work,
        timeout=DEADLINE,
    )
    assert submitted.returncode == 0, submitted.stderr
    wait_until(
        lambda: log.is_file() and ("Done: 1 iterations" in log.read_text() or "error: " in log.read_text())
    )
    assert "Done: 1 iterations" in log.read_text(), log.read_text()
    state = StateDir(work / "state")
    [code] = (state.jobs / "code").iterdir()
    assert (code / "sparta" / "slurm" / "profiles" / "devcluster.yaml").is_file()
    assert manifests(state.root) == manifests(tmp_path / "here")
