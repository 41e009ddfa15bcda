"""A new method needs only two files, in methods/ and phases/, to run and show everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT, manifests, write_recipe

BROUGHT = Path(__file__).parent / "brought"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands and the library with the two files added, and nothing else changed."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("sparta", "jobs", "slurm"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = {path.relative_to(root) for path in root.rglob("*")}
    shutil.copytree(
        BROUGHT, root / "sparta", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    added = {str(path.relative_to(root)) for path in root.rglob("*")} - {str(path) for path in before}
    assert added == {"sparta/methods/longest.py", "sparta/phases/count_words.py"}
    return root


def run(copy: Path, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        timeout=DEADLINE,
    )
    assert done.returncode in (0, 3), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def inline(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a state of two iterations, made in one process, and the output of the launch."""
    folder = tmp_path_factory.mktemp("inline")
    recipe = write_recipe(folder, method="longest", iterations=2, combats=6)
    return folder, run(copy, "jobs/launch.py", "--recipe", recipe, "--state", folder / "state")


def test_it_shows_in_the_plan_in_the_estimate_and_after_each_iteration(inline: tuple[Path, str]) -> None:
    _, said = inline
    assert "6 combats, 12 responses, 12 lengths, 1 training of up to 6 pairs" in said
    assert "6 weight updates" not in said.partition("estimate")[0] and "12 weight updates" in said
    assert "longest, iteration 2" in said and "count 1 (0)" not in said


def test_members_that_do_not_learn_are_carried_over_unchanged(inline: tuple[Path, str]) -> None:
    folder, _ = inline
    pools = [json.loads((folder / "state" / f"iter_{t:02d}" / "pool.json").read_text()) for t in range(3)]
    assert [member["sha256"] for member in pools[0][1:]] == [member["sha256"] for member in pools[2][1:]]
    assert pools[0][0]["sha256"] != pools[1][0]["sha256"] != pools[2][0]["sha256"]


def test_its_rows_are_committed_and_verified(copy: Path, inline: tuple[Path, str]) -> None:
    folder, _ = inline
    manifest = json.loads((folder / "state" / "iter_02" / "MANIFEST.json").read_text())
    assert manifest["rows"]["lengths"]["count"] == 12
    said = run(copy, "jobs/launch.py", "--state", folder / "state", "--iters", 2)
    assert "nothing to do" in said


def test_it_shows_in_the_status(copy: Path, inline: tuple[Path, str]) -> None:
    folder, _ = inline
    said = run(copy, "jobs/status.py", folder / "state")
    assert "count" in said and "24/24" not in said and "36/36" in said


def test_it_runs_in_separate_processes_with_identical_bytes(
    copy: Path, inline: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = inline
    where = ("--cluster", "local", "--set", "cluster.at_once=2")
    run(copy, "jobs/launch.py", "--recipe", folder / "recipe.yaml", "--state", tmp_path / "state", *where)
    assert manifests(tmp_path / "state") == manifests(folder / "state")


def test_its_array_is_in_the_dry_run_with_its_section_of_the_profile(copy: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, method="longest", iterations=1, combats=6, cluster={})
    profile = tmp_path / "profile.yaml"
    profile.write_text("name: mine\nnodes: 2\ngpus_per_node: 2\nphases: {count: {cpus: 3}}\n")
    said = run(
        copy,
        "jobs/launch.py",
        "--recipe",
        recipe,
        "--state",
        tmp_path / "state",
        "--profile",
        profile,
        "--dry-run",
        # Without sbatch, which other machines that test this do not have either.
        PATH=str(tmp_path),
    )
    assert "iter_01-count-a0" in said and "--cpus-per-task=3" in said
