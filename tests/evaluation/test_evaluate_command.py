"""Scoring: checkpoints are chosen on validation, only these see the test split, and every access is recorded first."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from support.fake_tasks import Quiz, questions
from support.openings import go_back
from support.scripted_run import advance, begin

from sparta.cluster.attempts import AttemptDir
from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest, plan_evaluation
from sparta.engines.base import Completion, Request
from sparta.engines.factory import close_engine
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.holdout_log import HoldoutAccess, accesses_so_far, holdout_log_file, record_accesses
from sparta.evaluation.items import items_file
from sparta.evaluation.scores import CheckpointScores, scores
from sparta.evaluation.selection import ALL, INITIAL, LAST, Mean, best, mean_of, pools
from sparta.evaluation.statistics import paired
from sparta.evaluation.summary import (
    CheckpointChoice,
    EvaluationSummary,
    Interval,
    RunComparison,
    Scale,
    TaskScores,
    merge_into_summary,
    merged_scores,
    read_summary,
)
from sparta.evaluation.tables import in_figures, score_table, show_scores
from sparta.grading.rubrics import Rubric
from sparta.recipes.load import adjust
from sparta.screen import Screen
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.run_budget import budget_of, spent
from sparta.tasks import prepared, registry
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, Source, Splits

Register = Callable[..., Quiz]
JUDGE = {"base": "umpire", "engine": {"kind": "scripted"}}
SCORE = Metric("score", top=10.0, rubric=Rubric("You are given a question and a response to it."))


def quality(item: Item, text: str) -> dict[str, float]:
    """The quality that a scripted answer states, from 0 to 1."""
    [stated] = re.findall(r"quality (\d+\.\d+)", text)
    return {"accuracy": float(stated) / 10}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers a task, only in this process."""

    def register(name: str, **fields: object) -> Quiz:
        given = {
            "grader": quality,
            "splits": {
                split: questions(f"{name}-{split}", 6, answer="x") for split in ("validation", "test")
            },
        }
        quiz = Quiz(name, **{**given, **fields})  # type: ignore[arg-type]
        monkeypatch.setitem(registry.TASKS, name, quiz)
        return quiz

    return register


def played(folder: Path, iterations: int = 2, **changes: object) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = begin(folder, iterations=iterations, **changes)
    for t in range(1, iterations + 1):
        advance(run, t)
    return run


def scored(run: Run, **asked: object) -> tuple[dict[str, TaskScores], str]:
    """The scores, and the printed output with tables."""
    console = Console(file=io.StringIO(), highlight=False, soft_wrap=True, width=300, record=True)
    found = score(EvaluateRequest(state=run.state.root, **asked), Screen(console))  # type: ignore[arg-type]
    show_scores(console, found)
    return found, console.export_text()


def asked_of(monkeypatch: pytest.MonkeyPatch, watch: Callable[[Request], None]) -> None:
    """`watch` sees every request before it is answered."""
    complete = ScriptedEngine._complete

    def watched(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        watch(request)
        return complete(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", watched)


def chosen(scores: TaskScores) -> dict[str, str]:
    return {choice.what: choice.checkpoint for choice in scores.choices}


# --- choosing


def test_the_first_the_last_and_all_pools_are_chosen_from() -> None:
    assert pools((0, 8), every=False) == {INITIAL: (0,), LAST: (8,)}
    assert pools((0, 1, 2), every=True) == {INITIAL: (0,), LAST: (2,), ALL: (0, 1, 2)}
    assert pools((0,), every=True) == {INITIAL: (0,), LAST: (0,), ALL: (0,)}


def test_the_highest_mean_is_chosen_and_of_equals_the_first() -> None:
    means = {"b": Mean(0.5, 4, 0), "c": Mean(0.7, 4, 0), "a": Mean(0.7, 4, 0)}
    assert best("quiz", ALL, means) == ("c", 0.7)


def test_ungraded_answers_are_left_out_of_a_mean_and_counted() -> None:
    assert mean_of(CheckpointScores({"x": 1.0, "y": 0.0}, 2)) == Mean(0.5, 2, 2)
    assert mean_of(CheckpointScores({}, 3)) == Mean(None, 0, 3)


def test_a_checkpoint_with_more_than_half_of_its_answers_ungraded_is_not_chosen() -> None:
    means = {"half": Mean(0.2, 2, 2), "less": Mean(1.0, 1, 3), "none": Mean(None, 0, 4)}
    assert best("quiz", ALL, means) == ("half", 0.2)
    del means["half"]
    with pytest.raises(
        SpartaError,
        match=r"best of all checkpoints on quiz cannot be determined: .* 1 of 4 of less, 0 of 4 of none",
    ):
        best("quiz", ALL, means)


# --- from validation to test


def test_choices_are_the_best_means_and_the_test_split_is_answered_by_them_alone(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path)
    register("quiz")
    found, told = scored(run, tasks="quiz", every=True)
    means = {
        name: sum(values.values.values()) / 6
        for name, values in scores(
            run, "validation", "quiz", "accuracy", ("iter_00", "iter_01", "iter_02")
        ).items()
    }
    quiz = found["quiz"]
    assert quiz.validation == pytest.approx(means) and len(means) == 12
    assert quiz.items == {"validation": 6, "test": 6}
    expected = {what: {f"iter_{t:02d}" for t in among} for what, among in pools((0, 1, 2), True).items()}
    for choice in quiz.choices:
        among = {name: mean for name, mean in means.items() if name[:7] in expected[choice.what]}
        assert choice.checkpoint == max(among, key=lambda name: among[name])
        assert choice.validation == pytest.approx(among[choice.checkpoint])
        values = scores(run, "test", "quiz", "accuracy", (choice.checkpoint,))[choice.checkpoint].values
        estimate = choice.test["accuracy"]
        assert estimate.mean == pytest.approx(sum(values.values()) / 6)
        assert estimate.low <= estimate.mean <= estimate.high
        assert choice.checkpoint in told and f"{estimate.mean:.1%}" in told
    tested = Evaluate("test", {"quiz": tuple(sorted(set(chosen(quiz).values())))})
    assert not tested.missing(run, 0)
    every = Evaluate("test", {"quiz": ("iter_00", "iter_01", "iter_02")})
    assert len(every.missing(run, 0)) == (12 - len(tested.requested["quiz"])) * 6
    assert read_summary(run.state) == EvaluationSummary(found)


def test_no_test_item_is_stored_or_sent_before_the_choice_and_every_access_is_recorded_first(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(tmp_path)
    register("quiz")
    seen = {"validation": 0, "test": 0}

    def watch(request: Request) -> None:
        _, checkpoint, item = request.key.split("/", 2)
        if item.startswith("quiz-validation"):
            assert (
                not items_file(run, "quiz", "test").parent.exists()
                and not holdout_log_file(run.state).exists()
            )
            seen["validation"] += 1
        else:
            assert seen["validation"] == 8 * 6
            assert checkpoint in {look.checkpoint for look in accesses_so_far(run.state)}
            seen["test"] += 1

    asked_of(monkeypatch, watch)
    monkeypatch.setattr(
        "sparta.commands.evaluate.best",
        lambda *given: (
            (not items_file(run, "quiz", "test").exists() and best(*given)) or pytest.fail("test was read")
        ),
    )
    scored(run, tasks="quiz")
    assert seen["test"] == 2 * 6


def test_several_tasks_share_one_array_per_split_and_one_engine_start(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path, iterations=1)
    register("quiz")
    register("other")
    close_engine()  # the one that has played
    found, told = scored(run, tasks="quiz,other")
    assert list(found) == ["quiz", "other"]
    pool = ("iter_00", "iter_01")
    for split in ("validation", "test"):
        [attempt] = AttemptDir(run, Evaluate(split, {"quiz": pool, "other": pool}), 0).all()
        assert attempt.shards == 1
    assert "tasks (model loads): score quiz, other validation 1 (1), score quiz, other test 1 (0)" in told


def test_validation_alone_gives_no_test_scores_and_test_continues_from_there(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path)
    register("quiz")
    with pytest.raises(SpartaError, match=rf"evaluate\.py {run.state.root} --tasks quiz --split validation$"):
        scored(run, tasks="quiz", split="test")
    assert not run.state.evals.exists()
    first, told = scored(run, tasks="quiz", split="validation")
    assert not items_file(run, "quiz", "test").exists() and not holdout_log_file(run.state).exists()
    assert all(choice.test == {} for choice in first["quiz"].choices) and "95 %" not in told
    with pytest.raises(SpartaError, match=r"--tasks quiz --all --split validation$"):
        scored(run, tasks="quiz", split="test", every=True)
    second, _ = scored(run, tasks="quiz", split="test")
    assert chosen(second["quiz"]) == chosen(first["quiz"])
    assert all("accuracy" in choice.test for choice in second["quiz"].choices)
    scored(run, tasks="quiz", split="validation")
    assert read_summary(run.state).tasks["quiz"].choices == second["quiz"].choices, "test scores stay"


def test_checkpoints_chosen_on_one_task_are_tested_on_others(tmp_path: Path, register: Register) -> None:
    run = played(tmp_path)
    for name in ("easy", "medium", "hard"):
        register(name)
    del registry.TASKS["hard"].splits["validation"]
    easy, _ = scored(run, tasks="easy", every=True)
    found, told = scored(run, tasks="medium,hard", select_on="easy", every=True)
    for name in ("medium", "hard"):
        assert chosen(found[name]) == chosen(easy["easy"])
        assert {choice.chosen_on for choice in found[name].choices} == {"easy"}
        assert not (run.state.evals / name / "validation").exists()
        assert found[name].items == {"test": 6}
    assert "medium: 6 test items, chosen on easy" in told
    kept = read_summary(run.state).tasks
    assert kept["easy"].choices == easy["easy"].choices, "what was known of the task that was chosen on stays"
    assert {(look.task, look.chosen_on) for look in accesses_so_far(run.state)} == {
        ("easy", "easy"),
        ("medium", "easy"),
        ("hard", "easy"),
    }
    scored(run, tasks="medium", every=True)
    both = read_summary(run.state).tasks["medium"].choices
    assert {choice.key for choice in both} == {
        (what, on) for what in (INITIAL, LAST, ALL) for on in ("easy", "medium")
    }


def test_ungraded_answers_are_reported_and_a_checkpoint_with_too_many_is_not_chosen(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path, iterations=1)
    plain = register("quiz")
    best_of_all = chosen(scored(run, tasks="quiz", every=True)[0]["quiz"])[ALL]

    def without(item: Item, text: str) -> dict[str, float]:
        # The best ones state a quality that no other states.
        return {} if text in spoiled else quality(item, text)

    rows = [
        json.loads(line)
        for path in (run.state.evals / "quiz" / "validation").glob("answers-*/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    spoiled = {
        row["text"] for row in rows if row["checkpoint"] == best_of_all and not row["item_id"].endswith("/0")
    }
    register("again", grader=without, splits=plain.splits)
    # The same questions under another name are answered otherwise: by the same models, with other keys. So the answers are those of `quiz`.
    (run.state.evals / "quiz").rename(run.state.evals / "gone")
    register("quiz", grader=without, splits=plain.splits)
    found, told = scored(run, tasks="quiz", every=True)
    assert found["quiz"].ungraded[best_of_all] == 5
    assert chosen(found["quiz"])[ALL] != best_of_all
    assert f"more than half of the answers of {best_of_all} are ungraded" in told
    assert "validation answers are ungraded and left out of the means" in told


# --- test-set accesses


def test_the_same_command_again_is_no_access_and_sends_no_request(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(tmp_path)
    register("quiz")
    first, _ = scored(run, tasks="quiz", every=True)
    noted = holdout_log_file(run.state).read_bytes()
    assert len(noted.splitlines()) == 3
    asked_of(monkeypatch, lambda request: pytest.fail("asked again"))
    again, told = scored(run, tasks="quiz", every=True)
    assert again == first and holdout_log_file(run.state).read_bytes() == noted
    assert "access number" not in told and "model loads" not in told


def test_an_access_interrupted_before_its_answers_counts_once(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(tmp_path)
    register("quiz")

    def interrupt(request: Request) -> None:
        if "quiz-test" in request.key:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        asked_of(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            scored(run, tasks="quiz")
    noted = holdout_log_file(run.state).read_bytes()
    assert len(noted.splitlines()) == 2
    found, _ = scored(run, tasks="quiz")
    assert holdout_log_file(run.state).read_bytes() == noted
    assert all(choice.test for choice in found["quiz"].choices)


def test_another_checkpoint_of_the_same_kind_is_a_second_access_and_reported(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path)
    register("quiz")
    scored(run, tasks="quiz")
    advance(run, 3)
    found, told = scored(run, tasks="quiz")
    last = chosen(found["quiz"])[LAST]
    assert last.startswith("iter_03-")
    assert f"test-set access number 2 for the {LAST}: {last}" in told
    assert [(look.why, look.number) for look in accesses_so_far(run.state)] == [
        (INITIAL, 1),
        (LAST, 1),
        (LAST, 2),
    ]
    kept = read_summary(run.state).tasks["quiz"].accesses
    assert {(look.why, look.checkpoint, look.number, look.time) for look in kept} == {
        (INITIAL, chosen(found["quiz"])[INITIAL], 1, ""),
        (LAST, last, 2, ""),
    }
    assert all(look.time for look in accesses_so_far(run.state))
    assert "test-set access number 2" in scored(run, tasks="quiz")[1], (
        "it stays the second, whoever asks again"
    )


def test_more_test_items_or_another_limit_are_another_access(tmp_path: Path, register: Register) -> None:
    run = played(tmp_path, iterations=1, evaluation={"test": 3})
    register("quiz")
    scored(run, tasks="quiz")
    for number, setting in enumerate(("evaluation.test=6", "evaluation.max_new_tokens=60"), start=2):
        Run.open(run.state).refreeze(adjust(Run.open(run.state).recipe, [setting]))
        _, told = scored(run, tasks="quiz")
        [said] = re.findall(rf"test-set access number {number} for the {INITIAL}: .*", told)
        assert "; earlier ones had another checkpoint, other items or another prompt format; see" in said
    assert len(accesses_so_far(run.state)) == 6


def test_going_back_sets_scores_aside_and_keeps_the_accesses(tmp_path: Path, register: Register) -> None:
    run = played(tmp_path)
    register("quiz")
    scored(run, tasks="quiz")
    noted = holdout_log_file(run.state).read_bytes()
    go_back(run.state, 1)
    assert [path.name for path in run.state.evals.iterdir()] == ["looks.jsonl"]
    assert holdout_log_file(run.state).read_bytes() == noted
    [aside] = run.state.superseded.iterdir()
    assert sorted(path.name for path in (aside / "evals").iterdir()) == ["quiz", "summary.json"]
    _, told = scored(run, tasks="quiz")
    assert f"test-set access number 2 for the {LAST}: iter_01-" in told


def test_the_same_checkpoint_with_other_weights_is_another_access(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    look = HoldoutAccess("quiz", "iter_01-a", "v1", LAST, "quiz", (0, 1), 5, "answers-chat-5")
    changed = msgspec.structs.replace
    assert [noted.number for noted in record_accesses(state, [look, changed(look, why=ALL)])] == [1, 1]
    assert [noted.number for noted in record_accesses(state, [look])] == [1]
    assert [noted.number for noted in record_accesses(state, [changed(look, version="v2")])] == [2]
    assert [noted.number for noted in record_accesses(state, [changed(look, chosen_on="other"), look])] == [
        1,
        1,
    ]
    assert len(accesses_so_far(state)) == 4


# --- what a judge gives


def test_a_task_that_only_a_judge_can_score_is_refused_without_one(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path, iterations=1)
    register("essay", metrics=(SCORE,))
    with pytest.raises(
        SpartaError, match=r"essay is scored by score, which needs a judge, .*: set evaluation\.judge"
    ):
        scored(run, tasks="essay")
    assert not run.state.evals.exists()


def test_other_metrics_that_need_a_judge_are_left_out_without_one_and_reported(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path, iterations=1)
    register("quiz", metrics=(Metric("accuracy"), SCORE))
    found, told = scored(run, tasks="quiz")
    assert "quiz: score left out: it needs a judge, and the recipe names none (evaluation.judge)" in told
    assert all(set(choice.test) == {"accuracy"} for choice in found["quiz"].choices)


def test_a_judge_grades_the_metric_of_the_choice_and_otherwise_only_the_chosen(
    tmp_path: Path, register: Register
) -> None:
    run = played(tmp_path, iterations=1, evaluation={"judge": JUDGE})
    register("essay", metrics=(SCORE,))
    register("quiz", metrics=(Metric("accuracy"), SCORE))
    found, told = scored(run, tasks="essay,quiz")
    pool = ("iter_00", "iter_01")
    assert not GradeAnswers("validation", {"essay": pool}).missing(run, 0)
    assert len(GradeAnswers("validation", {"quiz": pool}).missing(run, 0)) == 8 * 6
    assert 1 < found["essay"].choices[0].validation <= 10
    assert all(set(choice.test) == {"accuracy", "score"} for choice in found["quiz"].choices)
    assert "umpire" in found["essay"].prompt_format
    assert re.search(
        r"best initial model +iter_00-model\d +\d\.\d\d +score +\d\.\d\d +\d\.\d\d to \d\.\d\d ", told
    )


def test_a_judge_that_does_not_answer_stops_with_a_sentence_and_the_answers_stay(
    tmp_path: Path, register: Register
) -> None:
    endpoint = {"kind": "api", "api": {"url": "http://127.0.0.1:9/v1", "retries": 0, "timeout": 2}}
    run = played(tmp_path, iterations=1, evaluation={"judge": {"base": "umpire", "engine": endpoint}})
    register("essay", metrics=(SCORE,))
    with pytest.raises(SpartaError, match=r"127\.0\.0\.1:9"):
        scored(run, tasks="essay")
    assert not Evaluate("validation", {"essay": ("iter_00", "iter_01")}).missing(run, 0)
    Run.open(run.state).refreeze(
        adjust(Run.open(run.state).recipe, ["evaluation.judge.engine.kind=scripted"])
    )
    assert scored(run, tasks="essay")[0]["essay"].choices


def test_a_judge_that_cannot_grade_is_named_before_an_access_is_recorded(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(tmp_path, iterations=1, evaluation={"judge": JUDGE})
    register("quiz", metrics=(Metric("accuracy"), SCORE))
    scored(run, tasks="quiz", split="validation")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for setting, said in (
        ("kind=hf", r"^evaluation\.judge: base umpire is not a folder"),
        ("{kind: api, api: {url: 'https://example.org/v1'}}", r"^evaluation\.judge: .*OPENAI_API_KEY"),
    ):
        key, value = setting.split("=") if setting.startswith("kind") else ("", setting)
        engine = f"evaluation.judge.engine{key and f'.{key}'}={value}"
        Run.open(run.state).refreeze(adjust(Run.open(run.state).recipe, [engine]))
        for split in ("both", "test"):
            with pytest.raises(SpartaError, match=said):
                scored(run, tasks="quiz", split=split)
    assert not holdout_log_file(run.state).exists()


# --- against another run


def test_the_same_choice_of_two_runs_is_compared_item_by_item(tmp_path: Path, register: Register) -> None:
    register("quiz")
    one, other = played(tmp_path / "one"), played(tmp_path / "other", seed=1)
    with pytest.raises(SpartaError, match=rf"{other.state.root} has no test answers to quiz to compare with"):
        scored(one, tasks="quiz", against=other.state.root)
    assert not one.state.evals.exists(), "refused before anything starts"
    theirs, _ = scored(other, tasks="quiz", every=True)
    found, told = scored(one, tasks="quiz", against=other.state.evals)
    [comparison] = found["quiz"].against
    assert (comparison.what, comparison.metric) == (LAST, "accuracy"), "what both have chosen"
    found, told = scored(one, tasks="quiz", every=True, against=other.state.root)
    [comparison] = found["quiz"].against
    a, b = (
        scores(run, "test", "quiz", "accuracy", (name,))[name].values
        for run, name in ((one, chosen(found["quiz"])[ALL]), (other, chosen(theirs["quiz"])[ALL]))
    )
    expected = paired(a, b)
    assert (comparison.what, comparison.difference, comparison.p, comparison.n) == (
        ALL,
        expected.difference,
        expected.p,
        6,
    )
    assert other.info.run_id in comparison.other
    assert f"accuracy {100 * expected.difference:+.1f} points, p = {expected.p:.4f} (6 items)" in told
    assert {kept.what for kept in read_summary(one.state).tasks["quiz"].against} == {LAST, ALL}
    for run, whose, budget in (
        (one, "this run", comparison.budget),
        (other, comparison.other, comparison.other_budget),
    ):
        assert budget == budget_of(run) and budget.tokens == spent(run) and budget.tokens.trained > 0
        assert f"quiz: cost of {whose}: sparta, budget the paper's: {run.recipe.combats} prompts" in told
        assert f"tokens of {budget.iterations} iterations: {budget.tokens.in_words}" in told


def test_another_run_with_another_prompt_format_is_reported(tmp_path: Path, register: Register) -> None:
    register("quiz")
    one, other = played(tmp_path / "one", 1), played(tmp_path / "other", 1, evaluation={"max_new_tokens": 50})
    scored(other, tasks="quiz")
    _, told = scored(one, tasks="quiz", against=other.state.root)
    assert "used another prompt format or grading (answers-chat-50, here answers-chat-64)" in told


def test_runs_whose_items_only_share_their_ids_are_not_compared(tmp_path: Path, register: Register) -> None:
    """Item ids of a user's own files are line numbers."""
    quiz = register("quiz")
    one, other = played(tmp_path / "one", 1), played(tmp_path / "other", 1)
    scored(other, tasks="quiz")
    changed = list(quiz.splits["test"])
    changed[3] = msgspec.structs.replace(changed[3], answer="y")
    register("quiz", splits={**quiz.splits, "test": changed})
    with pytest.raises(SpartaError, match=r"^quiz: the test item quiz-test/3 differs between"):
        scored(one, tasks="quiz", against=other.state.root)
    assert read_summary(one.state).tasks["quiz"].against == []


def test_another_run_whose_scores_are_gone_or_of_another_recipe_is_named_before_any_work(
    tmp_path: Path, register: Register
) -> None:
    register("quiz")
    one, other = played(tmp_path / "one", 1), played(tmp_path / "other", 1)
    scored(other, tasks="quiz")
    command = rf"score it first, with python jobs/evaluate\.py {other.state.root} --tasks quiz --all$"

    def refused(said: str) -> None:
        with pytest.raises(SpartaError, match=rf"{other.state.root}.*{said}.*{command}"):
            scored(one, tasks="quiz", against=other.state.root)
        assert not one.state.evals.exists()

    for setting, said in (
        ("evaluation.test=3", r"was changed since quiz was scored \(.* 6 test items; now .* 3\)"),
        ("evaluation.max_new_tokens=50", "are incomplete"),
    ):
        before = Run.open(other.state).recipe
        other.refreeze(adjust(before, [setting]))
        refused(said)
        other.refreeze(before)
    [answers] = (other.state.evals / "quiz" / "test").glob("answers-*")
    answers.rename(tmp_path / "gone")
    refused("are incomplete")


def test_a_metric_without_grades_in_one_of_two_runs_is_left_out_and_reported(
    tmp_path: Path, register: Register
) -> None:
    register("quiz", metrics=(Metric("accuracy"), SCORE))
    one = played(tmp_path / "one", 1, evaluation={"judge": JUDGE})
    mute = {"kind": "scripted", "scripted": {"unreadable": {"judge": 1.0}}}
    other = played(tmp_path / "other", 1, evaluation={"judge": {**JUDGE, "engine": mute}})
    scored(other, tasks="quiz")
    found, told = scored(one, tasks="quiz", against=other.state.root)
    assert [comparison.metric for comparison in found["quiz"].against] == ["accuracy"]
    assert re.search(
        rf"quiz: score is not compared with rehearsal \({other.info.run_id}\): no test item has a grade in both runs "
        r"\(6 of iter_01-model\d here, 0 of iter_01-model\d there\)",
        told,
    )


def test_against_is_for_test_scores(tmp_path: Path, register: Register) -> None:
    register("quiz")
    run = played(tmp_path, 1)
    with pytest.raises(SpartaError, match="--against compares test scores"):
        scored(run, tasks="quiz", split="validation", against=run.state.root)


# --- what is asked for


def test_the_tasks_are_the_recipes_or_the_trained_one_or_the_users_own(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.recipe.scored_on == ()
    with pytest.raises(SpartaError, match="names no task to score on: add --tasks, or set evaluation.tasks"):
        scored(run)
    trained = run.recipe.model_copy(
        update={"data": run.recipe.data.model_copy(update={"task": "toy", "train": None})}
    )
    assert trained.scored_on == ("toy",)
    assert adjust(trained, ["evaluation.tasks=[gsm8k,toy]"]).scored_on == ("gsm8k", "toy")
    own = run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"validation": "v.jsonl"})})
    assert own.scored_on == ("own",)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tasks": "quizz"}, "there is no task quizz; did you mean quiz"),
        ({"tasks": "quiz", "select_on": "quis"}, "there is no task quis; did you mean quiz"),
        ({"tasks": " , "}, "--tasks names no task"),
        ({"tasks": "quiz,bare"}, "bare: no item of its validation split has an answer, which accuracy needs"),
        ({"tasks": "quiz,half"}, "half: no item of its test split has an answer"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_starts(
    asked: dict[str, str], said: str, tmp_path: Path, register: Register
) -> None:
    run = begin(tmp_path)
    register("quiz")
    register("bare", splits={split: questions(split, 2) for split in ("validation", "test")})
    register("half", splits={"validation": questions("v", 2, answer="x"), "test": questions("t", 2)})
    with pytest.raises(SpartaError, match=re.escape(said)):
        scored(run, **asked)
    assert not run.state.evals.exists()


def test_prepared_splits_are_looked_up_but_not_read_before_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source({}, lambda rows: Splits())
    sums = Dataset("sums", "Sums", (Metric("accuracy"),), True, 8, source, None, "MIT", (0, 2, 2), quality)
    monkeypatch.setitem(registry.TASKS, "sums", sums)
    folder = tmp_path / "datasets"
    run = begin(tmp_path, data={"train": "prompts.jsonl", "folder": str(folder)})
    provenance = prepared.Provenance("sums", "local", "MIT", {}, {}, (), {"test": "nobody has it"})
    splits = {split: questions(split, 2, answer="x") for split in ("validation", "test")}
    read: list[str] = []
    monkeypatch.setattr(prepared, "read", lambda folder, task, split: read.append(split))
    with pytest.raises(
        SpartaError, match="the data of sums is not prepared in .*: run python jobs/prepare_data"
    ):
        plan_evaluation(run, EvaluateRequest(tasks="sums"))
    prepared.write(folder, sums, {"validation": splits["validation"]}, provenance)
    with pytest.raises(SpartaError, match="sums has no test split in .*: nobody has it; then run"):
        plan_evaluation(run, EvaluateRequest(tasks="sums"))
    prepared.write(folder, sums, splits, provenance)
    assert list(plan_evaluation(run, EvaluateRequest(tasks="sums")).tasks) == ["sums"] and read == []


# --- the summary


def entry(**changes: object) -> TaskScores:
    test = {"accuracy": Interval(0.5, 0.4, 0.6)}
    scale = Scale("accuracy", 1.0)
    base = TaskScores(
        metrics=[scale],
        items={"validation": 4, "test": 4},
        prompt_format="answers-chat-5",
        validation={"iter_00-a": 0.5},
        ungraded={"iter_00-a": 0},
        choices=[CheckpointChoice(INITIAL, "iter_00-a", "quiz", scale, (0,), 0.5, test)],
        against=[
            RunComparison("rival (1)", INITIAL, "quiz", "accuracy", "iter_00-a", "iter_00-b", 0.1, 0.5, 4)
        ],
    )
    return msgspec.structs.replace(base, **changes)


def test_another_task_is_added_and_the_first_stays(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    merge_into_summary(state, {"quiz": entry()})
    merge_into_summary(state, {"other": entry(prompt_format="answers-plain-9")})
    assert read_summary(state).tasks == {"quiz": entry(), "other": entry(prompt_format="answers-plain-9")}


def test_scores_of_the_same_task_under_the_same_conditions_are_merged() -> None:
    scale = Scale("accuracy", 1.0)
    later = entry(
        items={"validation": 4},
        validation={"iter_01-a": 0.75},
        ungraded={"iter_01-a": 1},
        choices=[
            CheckpointChoice(INITIAL, "iter_00-a", "quiz", scale, (0,), 0.5),
            CheckpointChoice(ALL, "iter_01-a", "quiz", scale, (0, 1), 0.75),
        ],
        against=[],
    )
    both = merged_scores(entry(), later)
    assert both.validation == {"iter_00-a": 0.5, "iter_01-a": 0.75} and both.items == {
        "validation": 4,
        "test": 4,
    }
    assert [bool(choice.test) for choice in both.choices] == [True, False]
    assert both.against == entry().against
    moved = entry(choices=[CheckpointChoice(INITIAL, "iter_00-c", "quiz", scale, (0,), 0.9)], against=[])
    assert merged_scores(entry(), moved).against == [], "a comparison goes with its checkpoint"


@pytest.mark.parametrize(
    "changes", [{"prompt_format": "answers-chat-6"}, {"items": {"validation": 5}}, {"metrics": []}]
)
def test_scores_under_other_conditions_replace_earlier_ones(changes: dict[str, object]) -> None:
    later = entry(validation={}, choices=[], **changes)
    assert merged_scores(entry(), later) == later


@pytest.mark.parametrize(
    ("value", "top", "text"),
    [(0.5417, 1.0, "54.2%"), (7.314, 10.0, "7.31"), (None, 1.0, "-"), (1.0, 1.0, "100.0%")],
)
def test_scores_are_in_percent_or_have_two_digits(value: float | None, top: float, text: str) -> None:
    assert in_figures(value, top) == text


def test_the_table_has_a_line_for_each_metric_that_was_tested() -> None:
    scales = [Scale("accuracy", 1.0), Scale("score", 10.0)]
    test = {"accuracy": Interval(0.5, 0.4, 0.6), "score": Interval(None, None, None, 4)}
    told = entry(
        metrics=scales, choices=[CheckpointChoice(INITIAL, "iter_00-a", "quiz", scales[0], (0,), 0.25, test)]
    )
    table = score_table("quiz", told)
    assert table.title == "quiz: 4 validation and 4 test items"
    assert [tuple(column.cells) for column in table.columns] == [
        (INITIAL, ""),
        ("iter_00-a", ""),
        ("25.0%", ""),
        ("accuracy", "score"),
        ("50.0%", "-"),
        ("40.0% to 60.0%", "- to -"),
    ]
    untested = entry(choices=[CheckpointChoice(INITIAL, "iter_00-a", "quiz", scales[0], (0,), 0.25)])
    assert len(score_table("quiz", untested).columns) == 3
