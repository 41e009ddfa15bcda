"""The wheel is whole: built from a source distribution and installed in a fresh environment, away from the checkout, its commands do their work."""

import email
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.built_wheel import build_wheel, install, run_outside
from support.house import ROOT
from support.requirements import pins
from support.scripted_run import path_without_slurm, quiet, write_recipe

from sparta import __version__

Sparta = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a program of the environment, the console script if no other, with arguments in the folder cwd."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sparta(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Sparta:
    """Commands in an environment that has the wheel."""
    binaries = install(wheel, tmp_path_factory.mktemp("environment"))
    without = path_without_slurm(tmp_path_factory.mktemp("path"))

    def run(*arguments: object, cwd: Path, program: str = "sparta") -> "subprocess.CompletedProcess[str]":
        variables = {key: value for key, value in quiet().items() if key != "PYTHONPATH"}
        path = f"{binaries}{os.pathsep}{without}"
        command = [binaries / program if program == "sparta" else program, *arguments]
        return run_outside(command, cwd=cwd, env={**variables, "PATH": path})

    return run


def test_the_wheel_needs_what_the_pins_say(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        needed = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    assert needed is not None
    by_extra: dict[str, list[str]] = {"": [], "vllm": [], "dev": [], "embeddings": [], "track": []}
    for line in needed:
        pin, _, condition = line.partition("; extra == ")
        by_extra[condition.strip('"')].append(pin)
    assert sorted(by_extra[""]) == sorted(pins("cpu.txt"))
    assert sorted(by_extra[""] + by_extra["vllm"]) == sorted(pins("gpu.txt"))
    for extra in ("dev", "embeddings", "track"):
        assert sorted(by_extra[extra]) == sorted(pins(f"{extra}.txt"))


def test_the_wheel_holds_all_that_the_suite_ships(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("sparta/")}
    package = {
        path
        for path in (ROOT / "sparta").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path != ROOT / "sparta" / "README.md"
    }
    beside = {path for pattern in ("*.sh", "profiles/*.yaml") for path in (ROOT / "slurm").glob(pattern)}
    assert held == {str(path.relative_to(ROOT)) for path in package} | {
        f"sparta/{path.relative_to(ROOT)}" for path in beside
    }


def test_an_installed_package_runs_shows_and_scores_a_run_from_any_folder(
    sparta: Sparta, tmp_path: Path
) -> None:
    assert sparta("--version", cwd=tmp_path).stdout == f"sparta {__version__}\n"
    assert "init-pool" in sparta("--help", cwd=tmp_path).stdout
    planned = sparta("launch", "--dry-run", "--recipe", "toy", "--cluster", "inline", cwd=tmp_path)
    assert planned.returncode == 0 and "Dry run" in planned.stdout, planned.stderr
    recipe = write_recipe(tmp_path, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4})
    launched = sparta("launch", "--recipe", recipe, "--iters", 1, "--cluster", "local", cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert "sparta evaluate state" in launched.stdout
    seen = sparta("status", cwd=tmp_path)
    assert seen.returncode == 0 and "1 of 1 iterations committed" in seen.stdout, seen.stderr
    scored = sparta("evaluate", "state", "--split", "validation", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr


def test_an_installed_package_has_recipes_profiles_and_places_of_its_own(
    sparta: Sparta, tmp_path: Path
) -> None:
    shown = sparta("recipe", "show", "--recipe", "paper/gsm8k", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["pool"]["folder"] == str(tmp_path / "state" / "models")
    assert f"{tmp_path}/state/datasets" in sparta("prepare-data", "--help", cwd=tmp_path).stdout.replace(
        "\n", ""
    ).replace(" ", "")
    recipe = write_recipe(tmp_path)
    asked = ("launch", "--dry-run", "--recipe", recipe)
    for_slurm = sparta(*asked, "--profile", "a100-16", cwd=tmp_path)
    assert "slurm, profile a100-16," in for_slurm.stdout, for_slurm.stdout + for_slurm.stderr
    unknown = sparta(*asked, "--profile", "a100-61", cwd=tmp_path)
    assert unknown.returncode == 1 and "did you mean a100-16?" in unknown.stderr


def test_scripts_of_an_installed_package_run_where_they_were_put(sparta: Sparta, tmp_path: Path) -> None:
    put = sparta("scripts", cwd=tmp_path)
    assert put.stdout == "slurm\n", put.stderr
    own = (
        (tmp_path / "slurm" / "profiles" / "template.yaml").read_text().replace("name: template", "name: own")
    )
    (tmp_path / "slurm" / "profiles" / "own.yaml").write_text(own)
    script = tmp_path / "slurm" / "one_node.sh"
    arguments = (script, "--dry-run", "--recipe", write_recipe(tmp_path))
    here = sparta(*arguments, cwd=tmp_path, program="bash")
    assert here.returncode == 0 and "local" in here.stdout, here.stderr
    by_name = sparta(*arguments, "--cluster", "slurm", "--profile", "own", cwd=tmp_path, program="bash")
    assert "slurm, profile own," in by_name.stdout, by_name.stdout + by_name.stderr
    alone = run_outside(["bash", script, "--dry-run"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert alone.returncode == 1 and alone.stderr.startswith("error: there is n")
