"""`make gpu`: without a GPU it says so; on a CPU every check of it can be tried."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT

from sparta.cluster.gpus import visible_gpus


def gpu_checks(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "tests/bench/gpu.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_without_a_gpu_it_ends_with_one_sentence(tmp_path: Path) -> None:
    if visible_gpus():
        pytest.skip("there is a GPU")
    done = gpu_checks("--out", tmp_path / "out")
    assert done.returncode == 1 and done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("error: torch finds no GPU here")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)
def test_every_check_can_be_tried_on_a_cpu(tmp_path: Path) -> None:
    done = gpu_checks("--device", "cpu", "--shape", "tiny", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert {check["check"]: check["failed"] for check in written["checks"]} == dict.fromkeys(
        ("machine", "pool", "engine", "training", "iteration")
    )
    rows = {row["what"]: row["value"] for check in written["checks"] for row in check["rows"]}
    assert {
        "matrix product",
        "engine start, cold",
        "judge, expected: phase",
        "engine start, warm",
    } <= rows.keys()
    # On a CPU, members together compute what each computes alone.
    assert float(rows["together against alone"]) == 0.0
    assert (tmp_path / "gpu.md").read_text() in done.stdout
    assert not (tmp_path / "work").exists()


def test_a_check_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    # Without a pool there is nothing to iterate on.
    done = gpu_checks(
        "--device", "cpu", "--shape", "tiny", "--out", tmp_path, "--check", "iteration", "--check", "machine"
    )
    assert done.returncode == 1
    written = json.loads((tmp_path / "gpu.json").read_text())
    iteration, machine = written["checks"]
    assert "it ended with status 1, see" in iteration["failed"] and machine["failed"] is None
    assert "**iteration failed**" in (tmp_path / "gpu.md").read_text()
    assert (
        "error: " in (tmp_path / "iteration.log").read_text()
        or "Error" in (tmp_path / "iteration.log").read_text()
    )
