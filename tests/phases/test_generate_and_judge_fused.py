"""Generating and judging in one phase: the same rows, after any kill and any change of variant."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from support.openings import begin_or_continue
from support.scripted_run import advance, manifests, rows_on_disk, write_recipe

from sparta.engines.base import Completion, Request
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.phases.base import WorkItem
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.store.run import Run


def ignore(_: float) -> None: ...


def keys(items: "list[WorkItem] | tuple[WorkItem, ...]") -> list[str]:
    return [item.key for item in items]


def all_rows(run: Run) -> Counter[str]:
    return Counter(rows_on_disk(run, Generate(), 1) + rows_on_disk(run, Judge(), 1))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), models=5)


@pytest.fixture(scope="module")
def separate(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Manifests of a run whose phases were separate."""
    run = begin_or_continue(StateDir(tmp_path_factory.mktemp("separate") / "state"), load(recipe))
    for t in (1, 2):
        advance(run, t)
    return manifests(run.state.root)


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Run:
    """A fused run of the same recipe, not begun."""
    return begin_or_continue(StateDir(tmp_path / "state"), load(recipe, ["cluster.fused=true"]))


def test_two_iterations_are_those_of_separate_phases(run: Run, separate: dict[str, bytes]) -> None:
    for t in (1, 2):
        advance(run, t)
    assert manifests(run.state.root) == separate
    assert not (run.state.jobs / "iter_01" / "judge").exists()
    work = CombatAndJudge().work(run, 1)
    assert all_rows(run) == Counter(item.key for item in work)
    assert set(keys(list(work))) == {*keys(list(Generate().work(run, 1))), *keys(list(Judge().work(run, 1)))}


def test_votes_on_a_combat_come_as_soon_as_both_responses_exist(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    complete = ScriptedEngine._complete

    def noting(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        order.append(request.key)
        return complete(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", noting)
    advance(run, 1, upto="combat")
    combats = [key.partition("/")[0] for key in order]
    assert combats == sorted(combats), "a combat is through before the next one begins"
    assert len(order) == len(CombatAndJudge().work(run, 1))


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 7, 40])
def test_after_a_kill_either_variant_continues(
    killed_after: int, run: Run, separate: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance(run, 1, upto="plan")
    complete, left = ScriptedEngine._complete, [killed_after]

    def dying(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return complete(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", dying)
    with pytest.raises(KeyboardInterrupt):
        CombatAndJudge().perform(run, 1, keys(list(CombatAndJudge().work(run, 1))), 0, 0, ignore)
    monkeypatch.undo()
    assert sum(all_rows(run).values()) == killed_after
    run.recipe = run.recipe.model_copy(
        update={"cluster": run.recipe.cluster.model_copy(update={"fused": killed_after % 2 == 0})}
    )
    for t in (1, 2):
        advance(run, t)
    assert manifests(run.state.root) == separate
    assert set(all_rows(run).values()) == {1}, "no key was computed twice"


def test_shards_that_hold_whole_combats_come_to_the_same(run: Run, separate: dict[str, bytes]) -> None:
    advance(run, 1, upto="plan")
    phase = CombatAndJudge()
    bundles = sorted({item.bundle for item in phase.work(run, 1)})
    for shard in range(3):
        mine = [item.key for item in phase.work(run, 1) if item.bundle in bundles[shard::3]]
        phase.perform(run, 1, mine, 0, shard, ignore)
    assert not phase.missing(run, 1)
    for t in (1, 2):
        advance(run, t)
    assert manifests(run.state.root) == separate


def test_two_bases_cannot_be_fused(recipe: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(recipe.read_text())
    tree["pool"]["models"][0]["base"] = "another"
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(tree))
    load(path)
    with pytest.raises(SpartaError, match=r"cluster.fused needs one base for all models, but the pool has 2"):
        load(path, ["cluster.fused=true"])
