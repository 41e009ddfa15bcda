"""Reading a judge: what is a score, what is missing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparta.arena.votes import expected_score, parse_score

SCORES = [
    ('{"score": 7}', 7),
    ("{'score': 7}", 7),
    ('{"score":7}', 7),
    ('{ "score" : 7.5 }', 7.5),
    ('{"Score": 7}', 7),
    ('{"score": "8"}', 8),
    ("{'score': '8'}", 8),
    ('{"score": 8/10}', 8),
    ('{"score": "8/10"}', 8),
    ('```json\n{"score": 9}\n```', 9),
    ('Here you are: {"score": 3} I hope it helps.', 3),
    ('{"reason": "it is {fine}", "score": 6}', 6),
    ('{"score": 6, "reason": "fine"}', 6),
    ('{"score": 6,\n "reason": "fine"}', 6),
    ('{"score": 2} no: {"score": 9}', 9),
    ('{"score": 9}\nAbout this score: the answer is right.', 9),
    ("8/10", 8),
    ("8 / 10", 8),
    ("**8**/10", 8),
    ("(8/10)", 8),
    ("I give it 8/10.", 8),
    ("8.5/10, nearly 9", 8.5),
    ("10/10", 10),
    ("Score: 8", 8),
    ("score: 8.", 8),
    ("SCORE:8", 8),
    ("Score = 8", 8),
    ("Score：8", 8),
    ("**Score:** 8", 8),
    ("**Score**: 8", 8),
    ("Score: **8**", 8),
    ("Score: **8**/10", 8),
    ("Score: [[8]]", 8),
    ("Score (1-10): 8", 8),
    ("Score: 8 points", 8),
    ("Score: 8 - because it is right", 8),
    ("Score: 8 out of 10", 8),
    ("score: 10/10", 10),
    ("Final score: 8.25\n1. It is right.", 8.25),
    ("Score: 3\nScore: 4", 4),
    ("2/10 at first, then score: 4", 4),
    ("Score: 4, I mean 5/10", 5),
    ("7", 7),
    (" 7.5\n", 7.5),
    ("10", 10),
    ("1", 1),
]

MISSING = [
    "",
    "   ",
    "no idea",
    "seven",
    "7 8",
    "7.",
    "it is a 7",
    "0",
    "11",
    "-3",
    "0.99",
    "10.01",
    "7/100",
    "Score: 7/100",
    "Score: 7 / 100",
    "Score: **7**/100",
    "Score: 7 out of 100",
    "Score: 7 (out of 100)",
    "Score: 7%",
    "Score: 7 %",
    "12/10",
    "0/10",
    "0.5/10",
    ".5/10",
    "-3/10",
    "7-8/10",
    "3/5/10",
    "5/10/2023",
    "8/100",
    "0." + "0" * 80 + "8/10",
    "8/10.5",
    "8/10%",
    "8/10ths",
    "Score: -3",
    "Score: −3",
    "Score: +8",
    "Score: 11",
    "Score: 0",
    "Score: 8e0",
    "Score: 8.5.2",
    "Score: 8,5",
    "Score: 8:30",
    "Score: 8-9",
    "Score: 8 - 9",
    "Score: 8 to 9",
    "Score: 8 or 9",
    "Score: 8 9",
    "Score: 8, 9",
    "Score:\n1. It is right.\n2. It is short.",
    "Score: 8½",
    "Score: 8²",
    "Score: 1 (worst) to 10 (best)",
    "Score: [1-10]",
    "Score: NaN",
    "Score: inf",
    "Score: n/a",
    "Score: " + "9" * 5000,
    '{"score": ' + "9" * 5000 + "}",
    "score 1 to 10",
    "score: n",
    "Score: ８",
    "８",
    "٨/10",
    "1٨/10",
    '{"score": ８}',
    "I rate 8 out of 10",
    "underscore: 8",
    "sub-score: 8",
    "scores: 8",
    '{"final_score": 8}',
    '{"score": n}',
    '{"score": null}',
    '{"score": NaN}',
    '{"score": Infinity}',
    '{"score": true}',
    '{"score": 11}',
    '{"score": 0}',
    '{"score": -8}',
    '{"score": 8.}',
    '{"score": 1e1}',
    '{"score": 8,5}',
    '{"score": 8/100}',
    '{"score": "8 or 9"}',
    '{"score": \'8"}',
    '{"score": [8]}',
    '{"score": 1',
    '{"score": 1\n',
    '{"score": <1-10>}',
    'Give only a score from 1 (worst) to 10 (best) as JSON: {"score": n}',
    "Give only a score from 1 (worst) to 10 (best) as JSON: {'score': n}",
]

NEVER_FALL_BACK = [
    '{"score": 8} {"score": 11}',
    '{"score": 8}\n{"score": n}',
    '{"score": 8} {"score": null}',
    '{"score": 8} {"score": 1',
    "Score: 8\nScore: 12",
    "Score: 8\nScore: N/A",
    "8/10, no, 12/10",
    "Score: 8, that is 7-8/10",
]


@pytest.mark.parametrize(("text", "score"), SCORES)
def test_a_score_is_read_in_any_of_its_forms(text: str, score: float) -> None:
    assert parse_score(text) == score


@pytest.mark.parametrize("text", MISSING)
def test_anything_else_is_missing(text: str) -> None:
    assert parse_score(text) is None


@pytest.mark.parametrize("text", NEVER_FALL_BACK)
def test_a_last_match_that_is_no_score_is_missing_whatever_stands_before(text: str) -> None:
    assert parse_score(text) is None


def test_a_bare_number_is_refused_where_the_judge_may_write_a_working() -> None:
    assert parse_score("7", bare=False) is None
    assert parse_score('7 {"score": 8}', bare=False) == 8


@given(
    st.integers(10, 100), st.sampled_from(['{{"score": {}}}', "{{'score': {}}}", "Score: {}", "{}/10", "{}"])
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_what_is_written_is_read(tenths: int, form: str) -> None:
    assert parse_score(form.format(tenths / 10)) == tenths / 10


@given(st.text(alphabet="0123456789.,-/+ \n{}[]'\"*:=scoreSCORE８٣²nNa", max_size=40))
@settings(deadline=None, max_examples=400, derandomize=True)
def test_nothing_crashes_the_reader_and_a_score_is_always_in_range(text: str) -> None:
    score = parse_score(text)
    assert score is None or 1 <= score <= 10


@pytest.mark.parametrize(
    "unit", ["1", "score:", '{"score": ', " ", "/10", "1/10 ", "score (", "*", "score: 1 (", "\n"]
)
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    parse_score(unit * (200_000 // len(unit)))  # quadratic time would be minutes


def test_the_expected_score_is_the_mean_label_on_1_to_10() -> None:
    # Ten labels 0..9: label l is score 1 + 9 l/9 = l + 1.
    assert expected_score([0.0] * 9 + [1.0]) == 10
    assert expected_score([1.0] + [0.0] * 9) == 1
    # 0.25 * 0 + 0.75 * 4 = 3, so 1 + 9 * 3/4 = 7.75 with five labels.
    assert expected_score([0.25, 0.0, 0.0, 0.0, 0.75]) == pytest.approx(7.75, abs=1e-12)
    # Not normalised: (1*1 + 2*1) / 3 = 1, so 1 + 9 * 1/2 = 5.5 with three labels.
    assert expected_score([1.0, 1.0, 1.0]) == pytest.approx(5.5, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12).filter(lambda p: sum(p) > 0))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_an_expected_score_is_in_range_whatever_the_distribution(probabilities: list[float]) -> None:
    assert 1 <= expected_score(probabilities) <= 10


@pytest.mark.parametrize("bad", [[], [1.0], [0.0, 0.0], [0.5, -0.1], [0.5, math.nan], [0.5, math.inf]])
def test_what_is_no_distribution_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="not a distribution"):
        expected_score(bad)
