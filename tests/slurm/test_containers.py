"""Tasks in a container on the real SLURM: a stand-in for apptainer, and one for pyxis, that hide whatever is not mounted (support/containers.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.containers import stand_in, why_none
from support.scripted_run import Launched, sentence, typed, wait_until
from support.slurm_runs import (
    HeldBack,
    assert_undisturbed,
    at_work,
    ended,
    gone,
    records,
    scene,
    variant,
)

from sparta.cluster.attempts import AttemptDir
from sparta.phases.generate import Generate
from sparta.store.layout import StateDir
from sparta.store.run import Run

KINDS = ("apptainer", "pyxis")


@pytest.fixture(autouse=True)
def _mounts() -> None:
    if why := why_none():
        (pytest.fail if "SPARTA_NEED_SLURM" in os.environ else pytest.skip)(why)


def profile_for(folder: Path, kind: str, image: Path, **container: object) -> Path:
    section = {"kind": kind, "image": str(image), "python": sys.executable, **container}
    return variant(folder / "profile.yaml", container=section)


def logs(run: Run, t: int = 1) -> list[str]:
    """The logs of all jobs of iteration t."""
    return [path.read_text() for path in (run.state.jobs / f"iter_{t:02d}").glob("*/logs/*_log.out")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_in_a_container_that_is_told_to_stop_is_requeued_from_outside_and_continues(
    kind: str, tmp_path: Path, launched: Launched
) -> None:
    """The container has neither SLURM's configuration nor its socket: the batch script requeues."""
    image, path = stand_in(tmp_path / "container", kind)
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    seen = [str(held.startup.parent), str(tmp_path / "held")]
    profile = profile_for(tmp_path, kind, image, mounts=seen)
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})
    asked = (*asked[:-1], profile)
    driver = launched(*asked, PATH=path, **held.environment)
    wait_until(lambda: at_work(state, Generate(), 2, 2))
    run = Run.open(state)
    [first, _] = sorted(records(run, Generate()), key=lambda record: record.shard)
    subprocess.run(["scancel", "--signal=USR2", str(first.job)], check=True)
    wait_until(lambda: any(record.outcome == "requeued" for record in records(run, Generate())))
    held.let_go("iter_01-generate-a0")
    out = ended(driver)
    assert "items are missing" not in out
    shown, adapter = "".join(out.split()), tmp_path / "adapters" / "model0"
    assert f"{kind},image{image}" in shown and f"sees{state.root}(mountedbythesuite)" in shown
    assert f"sees{adapter},read-only(mountedbythesuite)" in shown
    after = {record.shard: record for record in records(run, Generate())}
    assert (after[0].outcome, after[0].requeues, after[1].requeues) == ("done", 1, 0)
    assert len(AttemptDir(run, Generate(), 1).all()) == 1
    said = logs(run)
    assert said and all("in the stand-in for a container" in text for text in said)
    assert sum("the batch script requeues this task" in text for text in said) == 1
    assert_undisturbed(run, recipe, 1)


@pytest.mark.long
def test_two_iterations_of_the_toy_pool_run_in_a_container(tmp_path: Path, launched: Launched) -> None:
    image, path = stand_in(tmp_path / "container", "apptainer")
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", "toy", "--state", state.root, "--profile", profile_for(tmp_path, "apptainer", image))
    small = ("--set", "combats=4", "--set", "cluster.tasks=1")
    ended(launched(*asked, *small, "--iters", 1, PATH=path))
    # In a detached launch all steps are jobs, and so in the container.
    done = typed("launch", *asked, *small, "--iters", 2, "--detach", PATH=path)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: 2 in state.committed() or gone(Run.open(state)), 400)
    assert state.committed() == [0, 1, 2]
    run = Run.open(state)
    for t in (1, 2):
        assert all("in the stand-in for a container" in text for text in logs(run, t))
    assert typed("verify", state.root).returncode == 0


def test_the_stand_in_shows_only_what_is_mounted_and_only_as_it_is_mounted(tmp_path: Path) -> None:
    image, path = stand_in(tmp_path / "container", "apptainer")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()

    def inside(*words: str) -> "subprocess.CompletedProcess[str]":
        given = ["apptainer", "exec", *words]
        return subprocess.run(given, env={**os.environ, "PATH": path}, capture_output=True, text=True)

    assert inside(str(image), "ls", str(tmp_path)).returncode != 0
    mount = f"--bind={tmp_path / 'there'}:/data"
    assert inside(f"{mount}:ro", str(image), "ls", "/data").stdout == "file\n"
    assert "Read-only file system" in inside(f"{mount}:ro", str(image), "touch", "/data/new").stderr
    assert inside(f"{mount}:rw", str(image), "touch", "/data/new").returncode == 0
    assert (tmp_path / "there" / "new").is_file()
    assert "there is no folder" in inside(f"--pwd={tmp_path}", str(image), "true").stderr


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("apptainer", "in a container of apptainer, which is not on PATH here: load its module"),
        ("pyxis", "in a container of pyxis, and srun knows no --container-image here"),
    ],
)
def test_a_container_that_is_not_there_is_refused_before_anything_is_submitted(
    kind: str, said: str, tmp_path: Path, devcluster: Path
) -> None:
    image, _ = stand_in(tmp_path / "container", kind)
    _, state, asked = scene(tmp_path, iterations=1)
    refused = typed("launch", *asked[:-1], profile_for(tmp_path, kind, image))
    assert said in sentence(refused)
    assert not state.run_json.is_file()
