"""Combat and judging in one phase, with real models: on the embedded pool, decoded greedily, the same rows as apart, killed or not."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.openings import begin_or_continue
from support.scripted_run import advance

from sparta.engines.base import Completion, Inbox
from sparta.engines.factory import close_engine, loads_so_far
from sparta.engines.hf.engine import HfEngine
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards

GREEDY = (
    "combats=6",
    "iterations=1",
    "cluster.kind=inline",
    "generation.temperature=0",
    "judging.temperature=0",
    "engine.vllm.sequences=32",
)


def begin(folder: Path, *settings: str) -> Run:
    return begin_or_continue(StateDir(folder), load("toy", [*GREEDY, *settings]))


def rows(run: Run) -> tuple[dict[str, Response], dict[str, Vote]]:
    """Responses and votes without measurements."""
    iteration = run.iteration(1)
    responses, votes = read_shards(iteration.responses, Response), read_shards(iteration.votes, Vote)
    return (
        {key: msgspec.structs.replace(row, seconds=0.0) for key, row in responses.items()},
        {key: msgspec.structs.replace(row, seconds=0.0) for key, row in votes.items()},
    )


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Response], dict[str, Vote]]]:
    run = begin(tmp_path_factory.mktemp("apart") / "state")
    advance(run, 1, upto="judge")
    yield rows(run)
    close_engine()


def test_fused_and_killed_it_makes_the_rows_of_separate_phases(
    apart: tuple[dict[str, Response], dict[str, Vote]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "state", "cluster.fused=true")
    whole = HfEngine.run

    def dying(engine: HfEngine, requests: Inbox) -> Iterator[Completion]:
        judged = 0
        for done in whole(engine, requests):
            judged += done.key.count("/") == 2
            if judged == 3:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(HfEngine, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        advance(run, 1, upto="combat")
    monkeypatch.undo()
    responses, votes = rows(run)
    assert responses and len(votes) == 2
    advance(run, 1, upto="combat")
    assert rows(run) == apart
    close_engine()


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)
def test_on_vllm_it_makes_the_rows_of_the_other_engine_with_one_load(
    apart: tuple[dict[str, Response], dict[str, Vote]], tmp_path: Path
) -> None:
    loads = loads_so_far().bases
    run = begin(
        tmp_path / "state", "cluster.fused=true", "engine.kind=vllm", "engine.vllm.cpu_cache_gib=0.25"
    )
    advance(run, 1, upto="combat")
    assert loads_so_far().bases - loads == 1
    close_engine()
    for mine, theirs in zip(rows(run), apart, strict=True):
        assert mine.keys() == theirs.keys()
        equal = sum(mine[key] == theirs[key] for key in mine)
        assert equal >= 0.99 * len(mine), f"{equal} of {len(mine)}"
