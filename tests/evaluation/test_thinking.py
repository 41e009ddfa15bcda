"""Thinking models are graded by their answers; thinking that never ends is ungraded and counted."""

from pathlib import Path

import pytest
from support.fake_tasks import Quiz, complete, questions
from support.scripted_run import begin

from sparta.evaluation.answer import Evaluate
from sparta.evaluation.grade import GradeAnswers, has_answer
from sparta.evaluation.items import freeze_items
from sparta.evaluation.scores import scores
from sparta.evaluation.selection import mean_of
from sparta.evaluation.summary import Scale, TaskScores, format_of_scores, merged_scores
from sparta.evaluation.tables import remarks
from sparta.grading.rubrics import Rubric
from sparta.recipes.load import adjust
from sparta.store.records import Answer, Grade
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks import registry
from sparta.tasks.base import Metric

THINKS = {"thinking": {"open": "<think>", "close": "</think>"}, "thinking_tokens": 30}
METRICS = (Metric("accuracy"), Metric("kind", 10.0, Rubric("Grade how kind it is.")))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of thinking models, some of which think too long, a task for them, and a thinking judge."""
    quiz = Quiz(
        "essay",
        metrics=METRICS,
        max_new_tokens=60,
        grader=lambda item, text: {"accuracy": float("9.99" not in text)},
        splits={"validation": questions("v", 12, reference="gold")},
    )
    monkeypatch.setitem(registry.TASKS, "essay", quiz)
    judge = {"base": "judge", "engine": {"kind": "scripted"}, "chat": {**THINKS, "thinking_tokens": 200}}
    run = begin(tmp_path, chat=THINKS, evaluation={"judge": judge})
    freeze_items(run, "essay", "validation")
    return run


def test_thinking_is_neither_graded_nor_judged(run: Run) -> None:
    asked = {"essay": ("iter_00",)}
    phase = Evaluate("validation", asked)
    complete(run, phase)
    answers = read_shards(phase.parts[0].folder(run), Answer)
    silent = [row for row in answers.values() if not row.answered]
    assert 0 < len(silent) < len(answers)
    for row in answers.values():
        assert "hm" in row.thinking or "quality" in row.thinking
        assert "9.99" not in row.text and "hm" not in row.text
        assert row.grades == ({"accuracy": 1.0} if row.answered else {})
        assert has_answer(row) == row.answered
    grading = GradeAnswers("validation", asked)
    assert len(grading.work(run, 0)) == len(answers) - len(silent)
    complete(run, grading)
    grades = read_shards(grading.parts[0].folder(run), Grade)
    assert all(row.score is not None and row.thinking and "9.99" not in row.raw for row in grades.values())
    assert len({row.score for row in grades.values()}) > 1
    for metric in ("accuracy", "kind"):
        found = scores(run, "validation", "essay", metric, ("iter_00",))
        for name, scored in found.items():
            mine = sum(row.checkpoint == name for row in silent)
            assert (scored.ungraded, scored.unanswered) == (mine, mine)
            assert mean_of(scored).unanswered == mine


def test_thinking_that_never_ended_is_reported_below_the_table() -> None:
    before = TaskScores(
        [Scale("accuracy", 1.0)],
        {"validation": 9},
        "chat",
        {"a": 0.5, "b": 0.5},
        {"a": 3, "b": 2},
        {"a": 2, "b": 1},
    )
    again = TaskScores([Scale("accuracy", 1.0)], {"validation": 9}, "chat", {"a": 0.5}, {"a": 0}, {})
    assert merged_scores(before, again).unanswered == {"b": 1}
    assert any("in 3 of these the thinking never ended" in line for line in remarks("essay", before))


def test_the_prompt_format_of_scores_includes_chat_options(run: Run) -> None:
    def way(*settings: str) -> str:
        changed = Run(run.state, adjust(run.recipe, settings), run.info)
        return format_of_scores(changed, "essay", judged=False)

    assert way() != way("chat.template_kwargs={enable_thinking: false}")
    assert way("chat.thinking=auto", "chat.thinking_tokens=1024") == "answers-chat-60"
