"""From an array to what submitit is told; the whole scripts are in golden/."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparta.cluster.slurm.job import Piece, Work
from sparta.cluster.slurm.profile import Profile, load_profile
from sparta.cluster.slurm.submit import Array, parameters, submit, throttles
from sparta.errors import SpartaError


@given(st.integers(1, 500), st.integers(1, 60))
def test_arrays_share_what_may_run_at_once(width: int, parts: int) -> None:
    shares = throttles(width, parts)
    assert len(shares) == parts and min(shares) >= 1
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == max(width, parts)


@pytest.fixture
def profile() -> Profile:
    return load_profile("devcluster")


@pytest.fixture
def array(profile: Profile, tmp_path: Path) -> Array:
    return Array(
        name="name",
        work=Work(tmp_path / "state", (Piece("judge", 1, 0),)),
        first=0,
        count=4,
        throttle=2,
        resources=profile.shape("judge", "gpu"),
        logs=tmp_path / "logs",
        code=tmp_path / "it's code",
    )


def test_what_is_not_asked_for_is_not_said(array: Array, profile: Profile) -> None:
    told = parameters(array, profile)
    assert {told[key] for key in ("dependency", "qos", "account", "constraint", "exclude", "wckey")} == {None}
    assert "hold" not in told["additional_parameters"]
    step = parameters(replace(array, resources=profile.shape("merge", "cpu")), profile)
    assert step["gpus_per_node"] is None


def test_a_job_is_requeued_and_withdrawn_with_what_it_depends_on(array: Array, profile: Profile) -> None:
    told = parameters(replace(array, dependency="afterok:1:2", hold=True), profile)
    assert told["dependency"] == "afterok:1:2"
    more = told["additional_parameters"]
    assert (more["requeue"], more["kill-on-invalid-dep"], more["hold"]) == (True, "yes", True)


def test_the_gpu_type_is_said_where_one_is_wanted(array: Array, profile: Profile) -> None:
    assert parameters(array, profile)["gpus_per_node"] == "a100:1"
    any_type = replace(array, resources=replace(array.resources, gpu_type=None, gpus=2))
    assert parameters(any_type, profile)["gpus_per_node"] == 2


def test_the_copy_of_the_code_comes_before_anything_on_the_path(array: Array, profile: Profile) -> None:
    [line] = parameters(array, profile)["setup"]
    assert line.startswith("export PYTHONPATH='") and """it'"'"'s code'""" in line
    assert line.endswith('"${PYTHONPATH:+:$PYTHONPATH}"')


def test_options_of_the_profile_reach_sbatch_and_srun(array: Array, profile: Profile) -> None:
    more = profile.model_copy(
        update={"sbatch": {"mail-user": "me@example.org"}, "srun": ("--cpu-bind=none",)}
    )
    told = parameters(replace(array, resources=replace(array.resources, exclude=("node7", "node9"))), more)
    assert told["additional_parameters"]["mail-user"] == "me@example.org"
    assert told["srun_args"] == ["--cpus-per-task=1", "--cpu-bind=none"]
    assert told["exclude"] == "node7,node9"


def test_without_sbatch_nothing_is_submitted_and_the_way_out_is_named(
    array: Array, profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpartaError, match="sbatch is not on PATH"):
        submit(array, profile)
    # Pickles lie there that nobody else may put or read.
    assert array.logs.stat().st_mode & 0o077 == 0
