"""The embedded pool for real: models that generate, judge and learn, killed on the way, going on elsewhere, scored at the end."""

import json
import os
import random
import signal
from pathlib import Path

from support.scripted_run import Launched, rows_on_disk, typed, wait_until

from sparta.methods.registry import phases_of
from sparta.phases.base import RowPhase
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.manifest import verify
from sparta.store.records import Vote
from sparta.store.run import Run
from sparta.store.shards import LineCounter, read_shards
from sparta.store.stats import IterationStats

SMALL = (
    "--recipe",
    "toy",
    "--cluster",
    "inline",
    "--set",
    "combats=16",
    "--set",
    "evaluation.validation=20",
    "--set",
    "evaluation.test=20",
)
KILLS = int(os.environ.get("SPARTA_TOY_KILLS", "3"))
"""Each costs a start of torch; twenty take some minutes."""
ROWS = 2 * (2 * 16 + 2 * 16 * 8 + 10)
"""Of the whole run: responses, votes and trainings of two iterations."""


def test_killed_and_started_again_the_toy_pool_ends_valid_complete_and_scored(
    tmp_path: Path, launched: Launched
) -> None:
    state, stream = StateDir(tmp_path / "state"), random.Random(1)
    command = (*SMALL, "--state", state.root, "--iters", 2)
    killed = 0
    for _ in range(KILLS):
        process = launched(*command)
        target = lines_in(state) + stream.randint(1, 2 * ROWS // (KILLS + 1))
        wait_until(lambda: process.poll() is not None or lines_in(state) > target, seconds=120)  # noqa: B023
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed > KILLS / 2
    done = typed("launch", *command, "--cluster", "local", "--set", "cluster.at_once=2")
    assert done.returncode == 0, done.stderr
    run = Run.open(state)
    verify(state, run.info.genesis)
    assert state.committed() == [0, 1, 2]
    for t in (1, 2):
        for phase in phases_of(run.recipe, t):
            assert not phase.missing(run, t)
            if isinstance(phase, RowPhase):
                keys = rows_on_disk(run, phase, t)
                assert len(keys) == len(set(keys)), "work was done twice"
        votes = read_shards(run.iteration(t).votes, Vote)
        assert sum(vote.score is None for vote in votes.values()) < 0.05 * len(votes)
        stats = files.read_json(run.iteration(t).stats, IterationStats)
        assert set(stats.mean_losses) == set(run.models)
        assert standings.at_end(run, t) != standings.at_end(run, t - 1)
    scored = typed("evaluate", state.root)
    assert scored.returncode == 0, scored.stderr
    assert "best of the last pool" in scored.stdout
    status = typed("status", state.root, "--json")
    assert (status.returncode, json.loads(status.stdout)["state"]) == (0, "done")
    again = typed("launch", "--state", state.root)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def lines_in(state: StateDir) -> int:
    """Rows so far, of all phases and iterations."""
    iterations = [state.iteration(t) for t in state.iterations()]
    return sum(
        LineCounter(folder).fresh() for it in iterations for folder in (it.responses, it.votes, it.training)
    )
