"""Equal and empty responses get no votes and move no reputation; the result does not depend on how the rows were made."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.openings import begin_or_continue
from support.scripted_run import advance, begin, manifests, rows_on_disk, write_recipe

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.parallelism import sharded
from sparta.engines.base import Completion, Request
from sparta.engines.scripted import ScriptedEngine
from sparta.phases.base import ArrayPhase, Sink
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.undecidable import answer_of, undecidable
from sparta.recipes.load import adjust, load
from sparta.status.collect import status_of
from sparta.status.phase_status import PhaseStatus
from sparta.status.tables import show_status
from sparta.store import files, standings
from sparta.store.layout import StateDir
from sparta.store.records import Response, Result, Vote
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, read_shards
from sparta.store.stats import IterationStats

ALIKE = {"kind": "scripted", "scripted": {"equal": 0.5}}
"""About half of the questions are answered alike."""


def ignore(_: float) -> None: ...


def half_alike(folder: Path, **options: object) -> Run:
    folder.mkdir(exist_ok=True)
    return begin(folder, **{"combats": 20, "models": 5, "engine": ALIKE, **options})


def two_runs(folder: Path, *settings: str) -> tuple[Run, Run]:
    """Two runs of one recipe; the second with `settings` that only affect execution."""
    recipe = write_recipe(folder, combats=20, models=5, engine=ALIKE)
    one, other = StateDir(folder / "one"), StateDir(folder / "other")
    return begin_or_continue(one, load(recipe)), begin_or_continue(other, load(recipe, settings))


def alike(run: Run, t: int = 1) -> set[str]:
    """Combats with equal answers, found without the code under test."""
    said = read_shards(run.iteration(t).responses, Response)
    return {
        combat.combat_id
        for combat in run.plan(t)
        if len({said[f"{combat.combat_id}/{model}"].text.strip() for model in combat.models}) == 1
    }


def judged(run: Run, t: int = 1) -> set[str]:
    return {vote.combat_id for vote in read_shards(run.iteration(t).votes, Vote).values()}


def merged(run: Run, t: int = 1) -> list[bytes]:
    """What the merge wrote."""
    names = ("combats.jsonl", "preferences.jsonl", "standing.json", "stats.json")
    return [(run.iteration(t).root / name).read_bytes() for name in names]


def replace_text(run: Run, texts: dict[str, str]) -> None:
    [path] = run.iteration(1).responses.iterdir()
    rows = read_shards(run.iteration(1).responses, Response)
    files.write_rows(
        path,
        [
            Response(row.combat_id, row.model, texts.get(key, row.text), (), "", 1, 1, row.finish_reason)
            for key, row in rows.items()
        ],
    )


def phase_status(run: Run, name: str) -> PhaseStatus:
    [entry] = status_of(run).iterations
    return next(phase for phase in entry.phases if phase.name == name)


def test_equal_responses_are_not_judged_move_nothing_and_are_counted(tmp_path: Path) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="merge")
    same = alike(run)
    assert 3 < len(same) < 17
    assert judged(run) == {combat.combat_id for combat in run.plan(1)} - same
    for result in files.read_rows(run.iteration(1).combats, Result):
        if result.combat_id in same:
            assert (result.reason, result.scores, result.jury, result.winner) == ("equal", None, 0, None)
            assert result.reputations_before == result.reputations_after
        else:
            assert result.reason == "pair" and result.jury == 3
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    assert stats.reasons["equal"] == len(same)
    assert stats.votes_saved == 6 * len(same)
    assert sum(judge.votes for judge in stats.judges.values()) == 6 * (20 - len(same))


def test_an_empty_answer_or_none_leaves_nothing_to_judge(tmp_path: Path) -> None:
    run = half_alike(tmp_path, engine={"kind": "scripted"})
    advance(run, 1, upto="generate")
    first, second, third, *_ = run.plan(1)
    replace_text(
        run,
        {
            f"{first.combat_id}/{first.models[0]}": " \n",
            f"{second.combat_id}/{second.models[0]}": "the same",
            f"{second.combat_id}/{second.models[1]}": " the same\n",
            f"{third.combat_id}/{third.models[0]}": "",
            f"{third.combat_id}/{third.models[1]}": "",
        },
    )
    assert undecidable(run, 1) == {
        first.combat_id: "empty",
        second.combat_id: "equal",
        third.combat_id: "empty",
    }
    advance(run, 1, upto="merge")
    assert len(judged(run)) == 17
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    assert (stats.reasons["empty"], stats.reasons["equal"], stats.votes_saved) == (2, 1, 18)


def test_a_prompt_that_left_no_room_has_no_answer() -> None:
    row = Response("01-0", "a", "left over", (), "", 9, 0, "prompt_too_long")
    assert answer_of(row) == ""


def test_one_empty_answer_makes_a_combat_undecidable_before_the_other_exists(tmp_path: Path) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="plan")
    combat = run.plan(1)[0]
    with ShardWriter(run.iteration(1).responses, 0, 0) as writer:
        writer.write(Response(combat.combat_id, combat.models[0], "", (1,), "x", 1, 1, "stop"))
    assert undecidable(run, 1) == {combat.combat_id: "empty"}
    assert len(Judge().work(run, 1)) == 6 * 19


def test_an_iteration_of_nothing_but_equal_responses_is_an_iteration(tmp_path: Path) -> None:
    run = half_alike(tmp_path, engine={"kind": "scripted", "scripted": {"equal": 1.0}})
    advance(run, 1)
    assert not Judge().work(run, 1)
    assert files.read_json(run.iteration(1).stats, IterationStats).votes_saved == 6 * 20
    after, before = standings.at_end(run, 1), standings.at_end(run, 0)
    assert [after[name].reputation for name in run.models] == [before[name].reputation for name in run.models]


def test_where_the_recipe_says_so_equal_responses_are_judged(tmp_path: Path) -> None:
    run = half_alike(tmp_path, judging={"equal": "judge"})
    advance(run, 1, upto="merge")
    assert len(judged(run)) == 20
    results = list(files.read_rows(run.iteration(1).combats, Result))
    assert {result.reason for result in results if result.combat_id in alike(run)} == {"equal"}
    assert all(result.jury == 3 for result in results)
    assert files.read_json(run.iteration(1).stats, IterationStats).votes_saved == 0


def test_unnecessary_votes_change_nothing_in_the_merge(tmp_path: Path) -> None:
    run, other = half_alike(tmp_path / "a"), half_alike(tmp_path / "b", judging={"equal": "judge"})
    advance(run, 1, upto="merge")
    advance(other, 1, upto="judge")
    # A judge that cannot read equal answers is not stopped for it either.
    extra = next(iter(sorted(alike(other))))
    [path] = other.iteration(1).votes.iterdir()
    rows = list(files.read_rows(path, Vote))
    files.write_rows(
        path,
        [
            Vote(row.combat_id, row.contestant, row.judge, None, "?", 1) if row.combat_id == extra else row
            for row in rows
        ],
    )
    other.recipe = adjust(other.recipe, ["judging.equal=skip"])
    assert len(rows) == 6 * 20 > len(Judge().work(other, 1))
    assert not Judge().missing(other, 1)
    Merge().execute(other, 1)
    assert merged(other) == merged(run)
    status = phase_status(other, "judge")
    assert status.done == status.total == len(Judge().work(other, 1))


@pytest.mark.parametrize("apart", [True, False])
def test_apart_and_fused_come_to_the_same_manifests(apart: bool, tmp_path: Path) -> None:
    one, other = two_runs(tmp_path, f"cluster.fused={str(not apart).lower()}")
    for t in (1, 2):
        advance(one, t)
        advance(other, t)
    assert manifests(one.state.root) == manifests(other.state.root)
    assert judged(other) == {combat.combat_id for combat in other.plan(1)} - alike(other)


@pytest.mark.parametrize("killed_after", [1, 2, 5, 23, 47, 60])
@pytest.mark.parametrize("fused", [False, True])
def test_after_a_kill_anywhere_the_result_is_the_same(
    fused: bool, killed_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = two_runs(tmp_path, f"cluster.fused={str(fused).lower()}")
    advance(whole, 1)
    complete, left = ScriptedEngine._complete, [killed_after]

    def dying(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return complete(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", dying)
    with pytest.raises(KeyboardInterrupt):
        advance(run, 1)
    monkeypatch.undo()
    # And the other way: what was begun fused goes on apart.
    cluster = run.recipe.cluster.model_copy(update={"fused": not fused})
    run.recipe = run.recipe.model_copy(update={"cluster": cluster})
    advance(run, 1)
    assert manifests(run.state.root) == manifests(whole.state.root)


def test_votes_assigned_before_their_responses_existed_are_made_only_if_necessary(
    tmp_path: Path,
) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="plan")
    # As a detached launch deals: both arrays at once, behind the plan.
    dealt = [
        AttemptDir(run, phase, 1).assign(sharded(run, phase, 1, phase.missing(run, 1), 3), "slurm")
        for phase in (Generate(), Judge())
    ]
    assert [attempt.items for attempt in dealt] == [40, 120]
    for phase, attempt in zip((Generate(), Judge()), dealt, strict=True):
        for shard in range(attempt.shards):
            phase.perform(run, 1, AttemptDir(run, phase, 1).keys(0, shard), 0, shard, ignore)
    assert not Judge().missing(run, 1)
    assert len(rows_on_disk(run, Judge(), 1)) == 6 * (20 - len(alike(run)))


@pytest.mark.parametrize("phase", [Judge(), CombatAndJudge()])
def test_how_many_votes_there_will_be_is_final_when_all_responses_are_there(
    phase: ArrayPhase, tmp_path: Path
) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="plan")
    sizes = [len(phase.work(run, 1))]
    keys = [item.key for item in Generate().work(run, 1)]
    for part in (keys[:15], keys[15:39]):
        Generate().perform(run, 1, part, 0, len(sizes), ignore)
        sizes.append(len(phase.work(run, 1)))
        assert not phase.final(run, 1)
    Generate().perform(run, 1, keys, 0, 9, ignore)
    assert phase.final(run, 1)
    sizes.append(len(phase.work(run, 1)))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    judging = half_alike(tmp_path / "judge", judging={"equal": "judge"})
    advance(judging, 1, upto="plan")
    assert phase.final(judging, 1)


def test_status_says_up_to_until_it_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="plan")
    before = phase_status(run, "judge")
    assert (before.done, before.total, before.upto) == (0, 120, True)
    show_status(status_of(run), run.state.root)
    assert "0/up to 120" in capsys.readouterr().out
    advance(run, 1, upto="judge")
    after = phase_status(run, "judge")
    needed = 6 * (20 - len(alike(run)))
    assert (after.done, after.total, after.upto) == (needed, needed, False)


def test_progress_of_a_fused_phase_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = half_alike(tmp_path)
    advance(run, 1, upto="plan")
    progress: list[float] = []
    watch: Callable[[float], None] = progress.append
    skipped: list[int] = []
    skip = Sink.skip
    monkeypatch.setattr(Sink, "skip", lambda sink, items: skipped.append(items) or skip(sink, items))
    phase = CombatAndJudge()
    phase.perform(run, 1, [item.key for item in phase.work(run, 1)], 0, 0, watch)
    assert sum(progress) == 40 + 120
    assert sum(skipped) == 6 * len(alike(run))
