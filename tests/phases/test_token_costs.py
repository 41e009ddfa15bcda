"""Costs: tokenized prompts, and expected lengths from earlier ones, using only what is known when keys are assigned."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models
from support.scripted_run import advance, begin

from sparta.chat.template import Message
from sparta.cluster.account import measure
from sparta.engines import token_count
from sparta.methods.registry import phases_of
from sparta.phases import token_costs
from sparta.phases.base import WorkItem
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.records import Answer, Combat, Response, response_key
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, iter_shards
from sparta.tasks.base import Item

PROMPT_TOKEN = 0.35


def prompt_tokens(combat: Combat) -> float:
    return len(combat.messages[0].content) / token_count.CHARACTERS_A_TOKEN + token_count.FRAME_TOKENS


def written(run: Run, t: int) -> dict[str, Response]:
    return {row.key: row for row in iter_shards(run.iteration(t).responses, Response)}


@pytest.fixture
def planned(tmp_path: Path) -> Run:
    run = begin(tmp_path, generation={"max_new_tokens": 100}, judging={"max_new_tokens": 20})
    advance(run, 1, upto="plan")
    return run


def test_before_anything_was_written_a_response_is_half_of_what_is_allowed(planned: Run) -> None:
    for item in Generate().priced(planned, 1, Generate().work(planned, 1)):
        combat = next(combat for combat in planned.plan(1) if item.key.startswith(combat.combat_id))
        assert item.cost == pytest.approx(50 + PROMPT_TOKEN * prompt_tokens(combat))


def test_a_response_is_expected_to_be_as_long_as_its_model_s_were_in_the_iteration_before(
    planned: Run,
) -> None:
    for t in (1, 2):
        advance(planned, t, upto="commit" if t == 1 else "plan")
    lengths: dict[str, list[int]] = {}
    for row in written(planned, 1).values():
        lengths.setdefault(row.model, []).append(row.new_tokens)
    expected = token_costs.expected_tokens(planned, 2)
    for model, found in lengths.items():
        assert expected[model] == pytest.approx(sum(found) / len(found))
    assert token_costs.expected_tokens(planned, 1) == dict.fromkeys(planned.models, 50)


def test_a_vote_reads_the_response_as_long_as_it_is_and_as_it_is_expected_before(planned: Run) -> None:
    before = {item.key: item.cost for item in Judge().priced(planned, 1, Judge().work(planned, 1))}
    advance(planned, 1, upto="generate")
    rows = written(planned, 1)
    frame = len(token_costs.wrapping(planned.recipe)) / token_count.CHARACTERS_A_TOKEN
    for item in Judge().priced(planned, 1, Judge().work(planned, 1)):
        combat_id, contestant, _ = item.key.split("/")
        combat = next(combat for combat in planned.plan(1) if combat.combat_id == combat_id)
        row = rows[response_key(combat_id, contestant)]
        read = prompt_tokens(combat) + frame
        assert item.cost == pytest.approx(20 + PROMPT_TOKEN * (read + row.new_tokens))
        assert before[item.key] == pytest.approx(20 + PROMPT_TOKEN * (read + 50))


def test_a_verdict_is_expected_to_be_as_long_as_the_judge_s_were(planned: Run) -> None:
    assert token_costs.expected_verdicts(planned, 1) == dict.fromkeys(planned.models, 20)
    advance(planned, 1)
    measure(planned, phases_of(planned.recipe, 1), 1)
    verdicts = token_costs.expected_verdicts(planned, 2)
    assert all(5 < tokens < 20 for tokens in verdicts.values())


@pytest.mark.parametrize(("working", "tokens"), [(False, 1), (True, 21)])
def test_labels_cost_one_token_and_the_reasoning_before_them(
    working: bool, tokens: int, tmp_path: Path
) -> None:
    run = begin(tmp_path, judging={"mode": "expected", "working": working, "max_new_tokens": 20})
    assert set(token_costs.expected_verdicts(run, 1).values()) == {tokens}


def test_items_of_other_kinds_are_left_as_they_are(planned: Run) -> None:
    strange = WorkItem("something", 7.0, "group")
    assert (
        token_costs.of_responses(planned, 1, [strange])
        == token_costs.of_votes(planned, 1, [strange])
        == [strange]
    )


def answer_items(run: Run, *checkpoints: str) -> list[WorkItem]:
    return [WorkItem(f"quiz/{name}/q", 1.0, name, run.bases[name.partition("-")[2]]) for name in checkpoints]


def test_answers_are_expected_to_be_as_long_as_those_of_the_same_checkpoint_model_or_task(
    tmp_path: Path,
) -> None:
    run, folder = begin(tmp_path), tmp_path / "answers"
    items = answer_items(run, "iter_00-model0", "iter_00-model1", "iter_05-model1", "iter_05-model2")
    questions = {"q": Item("q", (Message("user", "x" * 40),))}
    prompt = PROMPT_TOKEN * (10 + token_count.FRAME_TOKENS)
    assert {item.cost for item in token_costs.of_answers(run, items, questions, folder, 60)} == {30 + prompt}
    with ShardWriter(folder, 0, 0) as writer:
        for name, item_id, tokens in (
            ("iter_00-model0", "a", 10),
            ("iter_00-model1", "a", 20),
            ("iter_00-model1", "b", 30),
        ):
            writer.write(Answer("quiz", name, item_id, "", {}, 1, tokens, "stop"))
    found = token_costs.of_answers(run, items, questions, folder, 60)
    assert [item.cost for item in found] == pytest.approx(
        [10 + prompt, 25 + prompt, 25 + prompt, 20 + prompt]
    )


def test_each_scored_choice_costs_the_prompt_and_itself_and_generates_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    asked = {"a/b": Item("a/b", (Message("user", "x" * 40),), choices={"A": "y" * 4, "B": "y" * 12})}
    [item] = token_costs.of_log_likelihoods(
        run, [WorkItem("quiz/iter_00-model0/a/b", 1.0, "c", "none")], asked
    )
    assert item.cost == pytest.approx(PROMPT_TOKEN * (2 * (10 + token_count.FRAME_TOKENS) + 1 + 3))


def test_a_grade_reads_the_rubric_the_question_and_the_answer(tmp_path: Path) -> None:
    run = begin(tmp_path)
    graded = WorkItem("quiz/iter_00-model0/m/q", 1.0, "judge", "none")
    [item] = token_costs.of_grades(run, [graded], {graded.key: ("x" * 40, 25.0)}, 32)
    assert item.cost == pytest.approx(32 + PROMPT_TOKEN * (10 + token_count.FRAME_TOKENS + 25))


def test_prompts_are_measured_with_the_base_s_own_tokenizer(tmp_path: Path) -> None:
    tiny_models.make_tokenizer(tmp_path / "base")
    assert token_count.counter_of(str(tmp_path / "base"))("the 10.") == 4  # the merges: "the", "10"
    assert token_count.counter_of(str(tmp_path / "none"))("12345678") == 2


def test_counting_tokens_loads_no_model_library(tmp_path: Path) -> None:
    tiny_models.make_tokenizer(tmp_path / "base")
    code = (
        "import sys; from sparta.phases.token_costs import counter_of\n"
        f"counter_of({str(tmp_path / 'base')!r})('a text')\n"
        "print({'torch', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_endpoint_s_responses_are_as_long_as_their_text(tmp_path: Path) -> None:
    run = begin(tmp_path)
    with ShardWriter(run.iteration(1).responses, 0, 0) as writer:
        writer.write(Response("01-00", "model0", "x" * 80, (), "", 0, 0, "stop"))
    expected = token_costs.expected_tokens(run, 2)
    assert expected["model0"] == 20 and set(expected.values()) == {20}, "of others the mean of all"
