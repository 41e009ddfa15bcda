"""What a judge is asked to grade by, and how its grade is read."""

import re

import pytest
from support.real_data import RAW

from sparta.arena.votes import parse_score
from sparta.chat.judge_prompts import GRADING, GRADINGS, grading_pattern
from sparta.grading import rubrics
from sparta.grading.rubrics import Rubric, parse_grade

PAPER = RAW.parent / "paper" / "sparta_alignment.md"
RUBRICS = {name: value for name, value in vars(rubrics).items() if isinstance(value, Rubric)}


def test_there_is_a_rubric_for_every_metric_that_a_judge_gives() -> None:
    facets = {"MEDQA_COMPREHENSIVENESS", "MEDQA_INFORMATIVENESS", "MEDQA_COHERENCE"}
    assert set(RUBRICS) == {"GENERAL", "ALPACA", "COM2"} | facets
    # The paper shows its judge no reference for the sides of a medical answer (C.5), and one for Alpaca and COM2 (4.1).
    assert {name for name, rubric in RUBRICS.items() if not rubric.reference} == facets


@pytest.mark.parametrize("name", RUBRICS)
def test_a_rubric_has_words_of_its_own_and_speaks_of_a_reference_only_where_one_is_shown(name: str) -> None:
    rubric = RUBRICS[name]
    assert "\n\n" not in rubric.introduction and rubric.instruction in GRADINGS
    assert ("reference" in rubric.introduction.lower()) == rubric.reference
    assert len({other.introduction for other in RUBRICS.values()}) == len(RUBRICS)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"score": 0}', 0),
        ('{"score": 0.5}', 0.5),
        ("{'score': 8}", 8),
        ('{"score": "8"}', 8),
        ("8/10", 8),
        ("0/10", 0),
        ("Score: 8", 8),
        ("Score: 0", 0),
        ("Score: 0 out of 10", 0),
        ("10", 10),
        ("0", 0),
        ("Score: 3\nScore: 0", 0),
        ("```json\n{'score': 9}\n```", 9),
    ],
)
def test_a_grade_is_read_from_0_to_10(text: str, grade: float) -> None:
    assert parse_grade(text) == grade


@pytest.mark.parametrize(
    "text",
    [
        "",
        "good",
        "-1",
        "11",
        "10.5",
        "Score: -1",
        "Score: 11",
        '{"score": 0',
        "80/100",
        "Score: 0-10",
        "80%",
        "Score: 5\nScore: 12",
        "2 3",
    ],
)
def test_anything_else_is_missing(text: str) -> None:
    assert parse_grade(text) is None


def test_a_vote_still_begins_at_1() -> None:
    assert parse_score("0") is None
    assert parse_score('{"score": 0.5}') is None
    assert parse_score("1") == 1


@pytest.mark.parametrize("instruction", GRADINGS)
def test_what_a_judge_is_told_to_write_is_what_it_is_held_to_and_what_is_read(instruction: str) -> None:
    shown = instruction.partition("{")[2].partition("}")[0]
    for grade in (0, 7, 10):
        written = "{" + shown.rpartition(" ")[0] + f" {grade}}}"
        assert re.fullmatch(grading_pattern(instruction), written)
        assert parse_grade(written) == grade


def test_the_sides_of_a_medical_answer_are_asked_for_in_the_papers_words() -> None:
    if not PAPER.is_file():
        pytest.skip(f"the paper's text is not at {PAPER}")
    printed = plain(PAPER.read_text())
    for name in ("MEDQA_INFORMATIVENESS", "MEDQA_COHERENCE", "MEDQA_COMPREHENSIVENESS"):
        rubric = RUBRICS[name]
        ours = plain(
            f"{rubric.introduction} Question: {{prompt}} Response: {{response}} {rubric.instruction}"
        )
        assert ours in printed


def plain(text: str) -> str:
    """`text` without what lists, emphasis and line breaks are made of."""
    return " ".join(re.sub(r"[*\u2022]|(?<=\s)-", " ", text).split())


def test_usual_rubrics_are_known_by_what_they_always_were() -> None:
    assert rubrics.GENERAL.identity() == {"introduction": rubrics.GENERAL.introduction, "reference": True}
    assert GRADING not in rubrics.MEDQA_COHERENCE.identity().values()
    assert rubrics.MEDQA_COHERENCE.identity()["instruction"] == rubrics.MEDQA_COHERENCE.instruction
