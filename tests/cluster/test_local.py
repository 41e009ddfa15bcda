"""The local cluster's GPUs and logs."""

import stat
from pathlib import Path

import pytest
from rehearsal import typed, write_recipe

from sparta.cluster.local import visible_gpus


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,1", ("0", "1")),
        ("GPU-8a2b, MIG-77c1", ("GPU-8a2b", "MIG-77c1")),
        ("", ()),
        ("-1", ()),
    ],
)
def test_gpus_are_taken_by_the_names_that_the_environment_gives_them(
    named: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def test_pickles_of_a_run_are_private(tmp_path: Path) -> None:
    done = typed(
        "launch",
        "--recipe",
        write_recipe(tmp_path),
        "--state",
        tmp_path / "state",
        "--iters",
        1,
        "--cluster",
        "local",
    )
    assert done.returncode == 0, done.stderr
    pickles = list((tmp_path / "state" / "jobs").rglob("*.pkl"))
    assert pickles
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in pickles} == {0o700}
