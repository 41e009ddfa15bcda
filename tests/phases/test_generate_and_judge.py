"""Generate and judge: every key once, only missing ones, and an unreadable vote stays missing."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted_run import advance, begin, rows_on_disk

from sparta.chat.renderer import Renderer
from sparta.engines.base import Completion, Request
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.recipes.load import adjust
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards


def votes(run: Run, t: int = 1) -> dict[str, Vote]:
    return read_shards(run.iteration(t).votes, Vote)


def keep_lines(folder: Path, count: int) -> None:
    """Leave the first `count` rows of the only shard, as a kill would."""
    [path] = folder.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))


def ignore(_: float) -> None: ...


def test_each_contestant_answers_once_and_each_other_model_votes_on_both(tmp_path: Path) -> None:
    run = begin(tmp_path, models=5, combats=7)
    advance(run, 1, upto="judge")
    plan = run.plan(1)
    answers = read_shards(run.iteration(1).responses, Response)
    assert set(answers) == {f"{combat.combat_id}/{model}" for combat in plan for model in combat.models}
    assert set(votes(run)) == {
        f"{combat.combat_id}/{contestant}/{judge}"
        for combat in plan
        for contestant in combat.models
        for judge in run.models
        if judge not in combat.models
    }
    assert all(vote.score is not None and vote.tries == 1 for vote in votes(run).values())


@pytest.mark.parametrize(("phase", "folder"), [(Generate(), "responses"), (Judge(), "votes")])
def test_only_missing_keys_are_done_and_they_come_out_the_same(
    phase: Generate | Judge, folder: str, tmp_path: Path
) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto=phase.name)
    place = run.iteration(1).root / folder
    before = read_shards(place, phase.rows)
    keep_lines(place, 5)
    missing = [item.key for item in phase.missing(run, 1)]
    assert len(missing) == len(before) - 5
    phase.perform(run, 1, [item.key for item in phase.work(run, 1)], attempt=1, shard=0, watch=ignore)
    assert Counter(rows_on_disk(run, phase, 1)) == Counter(before.keys())
    again = read_shards(place, phase.rows)
    assert {key: (row.text if isinstance(row, Response) else row.score) for key, row in again.items()} == {
        key: (row.text if isinstance(row, Response) else row.score) for key, row in before.items()
    }


def test_a_task_does_only_its_assigned_keys(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    keys = [item.key for item in Generate().work(run, 1)][3:6]
    Generate().perform(run, 1, keys, attempt=0, shard=2, watch=ignore)
    assert set(rows_on_disk(run, Generate(), 1)) == set(keys)


def test_nothing_to_do_leaves_no_file(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    Generate().perform(run, 1, [item.key for item in Generate().work(run, 1)], 7, 0, ignore)
    assert [path.name for path in run.iteration(1).responses.iterdir()] == ["a0-00000.jsonl"]


def test_a_vote_that_cannot_be_read_is_tried_again_and_then_missing(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        judging={"retries": 3},
        engine={"kind": "scripted", "scripted": {"unreadable": {"model0": 1.0, "model1": 0.4}}},
    )
    advance(run, 1, upto="judge")
    by_judge: dict[str, list[Vote]] = {name: [] for name in run.models}
    for vote in votes(run).values():
        by_judge[vote.judge].append(vote)
    assert all(vote.score is None and vote.tries == 4 and vote.raw for vote in by_judge["model0"])
    tries = {vote.tries for vote in by_judge["model1"] if vote.score is not None}
    assert min(tries) == 1 and max(tries) > 1, "the retries have other seeds"
    assert all(vote.tries == 4 for vote in by_judge["model1"] if vote.score is None)
    assert all(vote.tries == 1 for vote in by_judge["model2"])


def test_without_retries_there_is_one_try(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        judging={"retries": 0},
        engine={"kind": "scripted", "scripted": {"unreadable": {"model0": 1.0}}},
    )
    advance(run, 1, upto="judge")
    assert {vote.tries for vote in votes(run).values()} == {1}


@pytest.mark.parametrize("working", [False, True])
def test_expected_votes_are_means_over_labels(working: bool, tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"mode": "expected", "working": working})
    advance(run, 1, upto="judge")
    found = list(votes(run).values())
    assert all(vote.score is not None and 1 <= vote.score <= 10 for vote in found)
    assert any(vote.score != round(vote.score or 0) for vote in found)
    assert {vote.raw for vote in found} == ({"scripted working\n"} if working else {""})
    assert all(bool(vote.new_tokens) == working for vote in found)


def test_a_working_that_never_ends_makes_the_vote_missing(tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"mode": "expected", "working": True, "max_new_tokens": 5, "retries": 1})
    advance(run, 1, upto="judge")
    assert {(vote.score, vote.tries) for vote in votes(run).values()} == {(None, 2)}


def test_a_working_before_a_written_score_does_not_count_as_the_score(tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"working": True, "max_new_tokens": 40})
    advance(run, 1, upto="judge")
    assert all(
        vote.raw == f'scripted working\n{{"score": {vote.score:.0f}}}'
        for vote in votes(run).values()
        if vote.score
    )
    assert all(vote.score is not None for vote in votes(run).values())


@pytest.mark.parametrize(("limit", "score"), [(8, None), (9, None), (30, 10)])
def test_a_score_that_the_token_limit_may_have_cut_makes_the_vote_missing(
    limit: int, score: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path, judging={"max_new_tokens": limit, "retries": 0})
    advance(run, 1, upto="generate")
    monkeypatch.setattr(ScriptedEngine, "_text", lambda engine, request: "Score: 10")
    advance(run, 1, upto="judge")
    assert {vote.score for vote in votes(run).values()} == {score}
    assert {vote.raw for vote in votes(run).values()} == {"Score: 10"[:limit]}


def test_a_question_too_long_for_a_judge_makes_its_vote_missing_with_nothing_written(tmp_path: Path) -> None:
    run = begin(tmp_path, engine={"kind": "scripted", "context_length": 150}, judging={"retries": 2})
    advance(run, 1, upto="judge")
    assert {(vote.score, vote.tries) for vote in votes(run).values()} == {(None, 1)}
    assert {vote.raw for vote in votes(run).values()} == {""}


def test_judging_before_generation_is_complete_is_refused(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    keep_lines(run.iteration(1).responses, 3)
    with pytest.raises(SpartaError, match="has no response .*/model.: generation is not complete"):
        Judge().perform(run, 1, [item.key for item in Judge().work(run, 1)], 0, 0, ignore)


def test_votes_do_not_depend_on_sharding(tmp_path: Path) -> None:
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one, many = begin(tmp_path / "one"), begin(tmp_path / "many")
    advance(one, 1, upto="judge")
    advance(many, 1, upto="generate")
    keys = [item.key for item in Judge().work(many, 1)]
    for shard in range(5):
        Judge().perform(many, 1, list(reversed(keys[shard::5])), 0, shard, ignore)
    assert {key: vote.score for key, vote in votes(one).items()} == {
        key: vote.score for key, vote in votes(many).items()
    }


def test_labels_of_several_tokens_stop_the_run_before_it_generates(tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"mode": "expected", "labels": ["ab", "cd"]})
    with pytest.raises(SpartaError, match=r"base none: .*set judging\.labels"):
        advance(run, 1, upto="generate")
    assert not rows_on_disk(run, Generate(), 1)


class Death(Exception):
    pass


def dying_after(count: int) -> Callable[..., Completion]:
    """Completes as the scripted engine does, `count` times."""
    complete, made = ScriptedEngine._complete, itertools.count()

    def dying(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        if next(made) == count:
            raise Death
        return complete(engine, request, began)

    return dying


@pytest.mark.parametrize(
    ("judging", "a_vote"), [({}, 1), ({"mode": "expected"}, 1), ({"mode": "expected", "working": True}, 2)]
)
def test_finished_votes_survive_the_death_of_the_task(
    judging: dict[str, object], a_vote: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path, judging=judging)
    advance(run, 1, upto="generate")
    monkeypatch.setattr(ScriptedEngine, "_complete", dying_after(25 * a_vote))
    with pytest.raises(Death):
        Judge().perform(run, 1, [item.key for item in Judge().work(run, 1)], 0, 0, ignore)
    assert len(votes(run)) == 25
    monkeypatch.undo()
    advance(run, 1, upto="judge")
    assert Counter(rows_on_disk(run, Judge(), 1)) == Counter(item.key for item in Judge().work(run, 1))


def test_prompts_are_rendered_as_the_engine_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    rendered = []
    render = Renderer.judging
    monkeypatch.setattr(
        Renderer, "judging", lambda *given, **named: rendered.append(1) or render(*given, **named)
    )
    monkeypatch.setattr(ScriptedEngine, "_complete", dying_after(1))
    with pytest.raises(Death):
        Judge().perform(run, 1, [item.key for item in Judge().work(run, 1)], 0, 0, ignore)
    assert (len(rendered), len(votes(run))) == (2, 1)


def test_without_sampling_a_vote_is_tried_once(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        judging={"retries": 3, "temperature": 0},
        engine={"kind": "scripted", "scripted": {"unreadable": {"model0": 1.0}}},
    )
    advance(run, 1, upto="judge")
    assert {vote.tries for vote in votes(run).values()} == {1}
    assert any(vote.score is None for vote in votes(run).values())


def test_labels_of_several_tokens_stop_the_judging(tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"mode": "expected"})
    advance(run, 1, upto="generate")
    run.recipe = adjust(run.recipe, ["judging.labels=[ab, cd]"])
    with pytest.raises(SpartaError, match="set judging.labels"):
        advance(run, 1, upto="judge")
