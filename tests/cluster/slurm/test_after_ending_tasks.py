"""Where tasks at once are limited, a phase waits for the GPUs of the one before, and not for a job that never ends."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.fake_slurm import FakeSlurm
from support.scripted_run import ROOT, advance, begin

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm import cli, launcher
from sparta.cluster.slurm.launcher import Slurm
from sparta.phases.generate import Generate
from sparta.recipes.load import adjust
from sparta.store.run import Run


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    known = (cli.known_clusters, cli.largest_array, cli._keeps_accounts)
    for each in known:
        each.cache_clear()
    monkeypatch.setattr(launcher, "SECONDS_TO_COMPLETE", 0.5)
    yield FakeSlurm(tmp_path, monkeypatch)
    for each in known:
        each.cache_clear()


@pytest.fixture
def planned(tmp_path: Path, slurm: FakeSlurm) -> Run:
    run = begin(tmp_path, combats=4)
    advance(run, 1, upto="plan")
    profile = yaml.safe_load((ROOT / "slurm" / "profiles" / "devcluster.yaml").read_text())
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({**profile, "poll_seconds": 0.01}))
    run.recipe = adjust(
        run.recipe, ["cluster.kind=slurm", f"cluster.profile={path}", "cluster.tasks=2", "cluster.at_once=2"]
    )
    return run


def start(of: Slurm, run: Run) -> None:
    attempts = AttemptDir(run, Generate(), 1)
    attempt = attempts.assign(shard_items(Generate().missing(run, 1), 2), "slurm")
    of.start(attempts, attempt, lambda *_: None)


@pytest.mark.parametrize(
    ("state", "dependency"), [("COMPLETED", None), ("RUNNING", "afterany:100"), ("COMPLETING", None)]
)
def test_no_job_waits_for_one_that_is_stuck_while_it_ends(
    state: str, dependency: str | None, slurm: FakeSlurm, planned: Run
) -> None:
    cluster = Slurm(planned)
    start(cluster, planned)
    slurm.tell("alpha", state=state)
    start(cluster, planned)
    assert [job["dependency"] for job in slurm.jobs if job["job"] == 101] == [dependency] * 2
    if state == "COMPLETING":
        # It is known by now: nobody waits for it again.
        slurm.set(jobs=[job for job in slurm.jobs if job["job"] == 100])
        began = time.monotonic()
        assert cluster._after_ending_tasks() is None
        assert time.monotonic() - began < 0.4


def test_tasks_that_end_in_time_are_waited_for(
    slurm: FakeSlurm, planned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Slurm(planned)
    start(cluster, planned)
    slurm.tell("alpha", state="COMPLETING")
    slept: list[float] = []
    sleep = time.sleep

    def ends(seconds: float) -> None:
        if seconds != 0.01:
            # Of other code, such as subprocess.
            sleep(seconds)
            return
        slept.append(seconds)
        slurm.tell("alpha", state="COMPLETED")

    monkeypatch.setattr(time, "sleep", ends)
    assert cluster._after_ending_tasks() is None
    assert slept == [0.01]
