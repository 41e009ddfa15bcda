"""What a judge is asked to grade by, and how its grade is read."""

import pytest

from sparta.arena.votes import parse_score
from sparta.grading import rubrics
from sparta.grading.rubrics import Rubric, parse_grade

RUBRICS = {name: value for name, value in vars(rubrics).items() if isinstance(value, Rubric)}


def test_there_is_a_rubric_for_every_metric_that_a_judge_gives() -> None:
    facets = {"MEDQA_COMPREHENSIVENESS", "MEDQA_INFORMATIVENESS", "MEDQA_COHERENCE"}
    assert set(RUBRICS) == {"GENERAL", "ALPACA", "COM2"} | facets
    # The paper shows its judge no reference for the sides of a medical answer (C.5), and one for Alpaca and COM2 (4.1).
    assert {name for name, rubric in RUBRICS.items() if not rubric.reference} == facets


@pytest.mark.parametrize("name", RUBRICS)
def test_a_rubric_is_one_line_of_its_own_and_speaks_of_a_reference_only_where_one_is_shown(name: str) -> None:
    rubric = RUBRICS[name]
    assert "\n" not in rubric.introduction
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
