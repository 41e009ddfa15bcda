"""Where tasks run: the recipe decides; with `auto` the run's last launcher comes before what the machine offers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.openings import begin_or_continue
from support.scripted_run import DEADLINE, ROOT, advance, manifests, quiet, sentence, typed, write_recipe

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.registry import launcher_for, settings_for
from sparta.cluster.sharding import shard_items
from sparta.commands.launch_request import LaunchRequest, resolve
from sparta.errors import SpartaError
from sparta.phases.generate import Generate
from sparta.recipes.load import adjust, load
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run

SLURM = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel", "sacct")


def programs(folder: Path, *names: str) -> str:
    """A PATH with SLURM's commands, none of which gets an answer."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(
            "#!/bin/sh\necho 'slurm_load_partitions: Unable to contact slurm controller' >&2\nexit 1\n"
        )
        (folder / name).chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.fixture
def slurm_lies_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", *SLURM))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def begun(folder: Path, **cluster: object) -> Run:
    recipe = write_recipe(folder, iterations=2, cluster={"kind": "auto", **cluster})
    return begin_or_continue(StateDir(folder / "state"), load(recipe))


def played_on(folder: Path, name: str) -> Run:
    """A run whose first iteration is planned, and whose responses the launcher of that name had to make."""
    run = begun(folder)
    advance(run, 1, upto="plan")
    AttemptDir(run, Generate(), 1).assign(shard_items(Generate().work(run, 1), 1), name)
    return run


@pytest.mark.usefixtures("slurm_lies_about")
@pytest.mark.parametrize("name", ["inline", "local"])
def test_a_run_started_on_this_machine_continues_there(name: str, tmp_path: Path) -> None:
    assert launcher_for(played_on(tmp_path, name)).name == name


@pytest.mark.usefixtures("slurm_lies_about")
def test_a_run_goes_on_where_its_latest_tasks_were(tmp_path: Path) -> None:
    run = played_on(tmp_path, "slurm")
    assert launcher_for(run).name == "slurm"
    attempts = AttemptDir(run, Generate(), 1)
    attempts.assign(shard_items(Generate().work(run, 1), 1), "local")
    assert launcher_for(run).name == "local"
    attempts.assign(shard_items(Generate().work(run, 1), 1), "slurm")
    assert launcher_for(run).name == "slurm"


@pytest.mark.usefixtures("slurm_lies_about")
def test_a_run_without_tasks_goes_where_jobs_can_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps in the driver itself, such as the plan, do not count."""
    run = begun(tmp_path)
    assert launcher_for(run).name == "slurm"
    advance(run, 1, upto="plan")
    assert launcher_for(run).name == "slurm"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert launcher_for(run).name == "inline"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert launcher_for(run).name == "local"


@pytest.mark.usefixtures("slurm_lies_about")
def test_a_run_that_was_on_slurm_goes_on_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played_on(tmp_path, "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert launcher_for(run).name == "inline"


@pytest.mark.usefixtures("slurm_lies_about")
def test_options_and_recipe_override_the_last_launcher(tmp_path: Path) -> None:
    run = played_on(tmp_path, "inline")
    run.recipe = adjust(run.recipe, settings_for("slurm", None))
    assert launcher_for(run).name == "slurm"


@pytest.mark.usefixtures("slurm_lies_about")
@pytest.mark.parametrize(
    ("kind", "profile", "then"),
    [
        ("inline", None, "inline"),
        ("local", None, "local"),
        ("slurm", None, "auto"),
        ("auto", None, "auto"),
        # Who names a cluster's profile means SLURM.
        ("inline", "devcluster", "slurm"),
    ],
)
def test_auto_follows_what_a_run_was_frozen_with(
    kind: str, profile: str | None, then: str, tmp_path: Path
) -> None:
    frozen = load(write_recipe(tmp_path, cluster={"kind": kind}))
    assert adjust(frozen, settings_for("auto", profile, frozen)).cluster.kind == then


@pytest.mark.usefixtures("slurm_lies_about")
def test_a_launch_by_auto_follows_what_its_run_was_frozen_with_and_a_branch_is_another_run(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path, kind="inline")
    on = LaunchRequest(state=run.state.root, cluster="auto")
    assert resolve(on, Screen()).run.recipe.cluster.kind == "inline"
    branch = LaunchRequest(resume=run.iteration(0).root, fork=tmp_path / "branch", cluster="auto")
    with pytest.raises(SpartaError, match="SLURM does not answer"):
        resolve(branch, Screen())


def test_a_profile_goes_with_auto_where_there_is_no_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    recipe = load(write_recipe(tmp_path))
    assert adjust(recipe, settings_for("auto", "devcluster")).cluster.kind == "auto"


@pytest.mark.parametrize("kind", ["auto", "inline"])
def test_it_is_continued_and_scored_where_it_was_begun_though_slurm_does_not_answer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM's commands were installed after its start, without a controller."""
    with monkeypatch.context() as before:
        before.setenv("PATH", str(tmp_path / "nothing"))
        recipe = write_recipe(
            tmp_path,
            iterations=1,
            cluster={"kind": kind},
            evaluation={"tasks": ["toy"], "validation": 4, "test": 4},
        )
        assert typed("launch", "--recipe", recipe, "--state", tmp_path / "state").returncode == 0
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", *SLURM))
    assert "SLURM does not answer" in sentence(
        typed("launch", "--recipe", recipe, "--state", tmp_path / "new", "--cluster", "slurm")
    )
    done = typed("launch", "--state", tmp_path / "state", "--iters", 2)
    assert done.returncode == 0, done.stderr
    assert len(manifests(tmp_path / "state")) == 3
    scored = subprocess.run(
        ["bash", str(ROOT / "slurm" / "eval_all.sh"), str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=quiet(),
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    summary = files.read_json(tmp_path / "state" / "evals" / "summary.json", dict)
    assert len(summary["tasks"]["toy"]["validation"]) == 12
