"""Labels against the truth, on a run whose answers and votes are written by hand."""

from pathlib import Path

import pytest
from support.openings import begin_or_continue
from support.scripted_run import rehearsal

from analysis.truth import agreement
from sparta.errors import SpartaError
from sparta.phases.merge import Merge
from sparta.phases.plan import Plan
from sparta.store.layout import StateDir
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.shards import ShardWriter
from sparta.tasks.registry import task_named


def judged(folder: Path, right_votes: float, wrong_votes: float) -> Run:
    """A merged iteration: the first contestant is right in every even combat, nobody in the others; judges vote as given."""
    recipe = rehearsal(folder, models=4, combats=10, data={"task": "toy"})
    run = begin_or_continue(StateDir(folder / "state"), recipe)
    Plan().execute(run, 1)
    answers = {item.item_id: item.answer or "" for item in task_named("toy").items("train", recipe.data)}
    iteration = run.iteration(1)
    with ShardWriter(iteration.responses, 0, 0) as responses, ShardWriter(iteration.votes, 0, 0) as votes:
        for index, combat in enumerate(run.plan(1)):
            for side, model in enumerate(combat.models):
                right = side == 0 and index % 2 == 0
                text = answers[combat.prompt_id] if right else f"wrong {side}"
                responses.write(Response(combat.combat_id, model, text, (), "", 1, 1, "stop"))
                for judge in set(run.models) - set(combat.models):
                    score = right_votes if right else wrong_votes
                    votes.write(Vote(combat.combat_id, model, judge, score, "", 1))
    Merge().execute(run, 1)
    return run


def test_judges_that_prefer_right_responses_agree_with_the_truth(tmp_path: Path) -> None:
    found = agreement(judged(tmp_path, right_votes=9, wrong_votes=2), 1)
    assert (found.decided, found.agreed, found.undecided) == (5, 5, 0)
    assert found.share == 1.0
    assert found.accuracy == pytest.approx(5 / 20)
    assert found.discerning == len(found.right)


def test_judges_that_prefer_wrong_responses_do_not(tmp_path: Path) -> None:
    found = agreement(judged(tmp_path, right_votes=2, wrong_votes=9), 1)
    assert (found.decided, found.agreed) == (5, 0)
    assert found.discerning == 0


def test_equal_votes_decide_nothing(tmp_path: Path) -> None:
    found = agreement(judged(tmp_path, right_votes=5, wrong_votes=5), 1)
    assert (found.decided, found.undecided) == (0, 5)


def test_a_run_without_gold_answers_is_refused(tmp_path: Path) -> None:
    run = begin_or_continue(StateDir(tmp_path / "state"), rehearsal(tmp_path))
    with pytest.raises(SpartaError, match="gold answers"):
        agreement(run, 1)


def test_a_run_without_combats_is_refused(tmp_path: Path) -> None:
    run = begin_or_continue(
        StateDir(tmp_path / "state"),
        rehearsal(
            tmp_path, models=3, data={"task": "toy"}, method="self_rewarding", baseline={"start": "model1"}
        ),
    )
    with pytest.raises(SpartaError, match="has no combats, because its method is self_rewarding"):
        agreement(run, 1)
