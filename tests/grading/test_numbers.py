"""Reading the number that an answer gives."""

import json
import time
from fractions import Fraction

import pytest
from support.scripted_run import ROOT

from sparta.errors import SpartaError
from sparta.grading.numbers import number_of, same_number

RAW = ROOT.parent / "shared" / "data" / "gsm8k" / "raw"

NUMBERS = [
    ("18", 18),
    ("18.", 18),
    ("-3", -3),
    ("−3", -3),
    ("1,234", 1234),
    ("$1,234,567.50", Fraction("1234567.5")),
    ("-$5", -5),
    ("$-5", -5),
    ("18.00", 18),
    (".5", Fraction(1, 2)),
    ("3/4", Fraction(3, 4)),
    ("1 1/2", Fraction(3, 2)),
    ("50%", 50),
    ("50 %", 50),
    ("18 dollars", 18),
    ("18th", 18),
    ("12 apples and 3 pears", 3),
    ("10-5", 5),
    ("10 - 5", 5),
    ("x2 is 7", 7),
    ("H2O", None),
    ("100m2", 100),
    ("7/0", None),
    ("1, 2", 2),
    ("5 + 3 = 8", 8),
    ("48/2 = 24", 24),
    ("He has 5.\n#### 72", 72),
    ("#### 72\nand 5 others", 72),
    ("#### 1\n#### 2", 2),
    ("#### 1,200.", 1200),
    ("#### -4", -4),
    ("#### $18", 18),
    ("#### none, so 5", 5),
    ("#### 72\nThe answer is 5.", 72),
    ("#### 9 * 2 = 18", 18),
    ("#### $9 \\times 2 = $18 a day", 18),
    ("####\n\n18 dollars", 18),
    ("#### Day total: 18", 18),
    ("#### Step 2: Conclude\nThe final number is 18.", 18),
    ("#### Step 2: Conclude\nSo, after 3 days:\n\\boxed{18}", 18),
    ("#### Step 2: 9 * 2\nThat is 18", 18),
    ("#### Conclusion of all 4 parts\nThe answer is 18.", 18),
    ("#### 18\n\n#### Check of 2 steps\nThe answer is 18, from 9.", 18),
    ("The final number is 18.\n\nTo check: 18/2=9", 18),
    ("The answer is 18. There were 5 of them.", 18),
    ("The answer is $18 per day, 5 days a week.", 18),
    ("the answer is: **18**. 7", 18),
    ("Answer: 18\nIn 2 days", 18),
    ("The answer is 3 + 4 = 7 apples.\n12", 7),
    ("The answer is 1.5. 7", Fraction(3, 2)),
    ("The answer is 5. No, the answer is 6. (Not 7.)", 6),
    ("The answer is 5, no, the answer is 6, for 3 of them.", 6),
    ("The answer is unclear. 4", 4),
    ("1" * 5000 + " 4", 4),
    ("The answer is 5 and \\boxed{6}", 5),
    ("\\boxed{18} of 20", 18),
    ("\\boxed{18} \\boxed{19} of 20", 19),
    ("\\boxed{\\frac{3}{4}} of 20", Fraction(3, 4)),
    ("\\boxed{1\\dfrac{1}{2}} of 20", Fraction(3, 2)),
    ("\\boxed{\\$1{,}234} of 20", 1234),
    ("\\boxed{10\\,000} of 20", 10000),
    ("\\boxed{50\\%} of 20", 50),
    ("\\boxed{x = 5} of 20", 5),
    ("\\boxed{18\\text{ dollars}} of 20", 18),
    ("\\boxed{18 of 20", 20),
    ("", None),
    ("no idea", None),
    ("eighteen", None),
    ("٣", None),
    ("####", None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_the_number_of_an_answer(text: str, number: int | Fraction | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize(
    "text", ["72", "The answer is 72.", "#### 72.0", "$\\boxed{72}$", "144/2", "so 72 dollars"]
)
def test_equal_numbers_are_the_same_however_they_are_written(text: str) -> None:
    assert same_number("#### 72", text)
    assert same_number("72", text)


@pytest.mark.parametrize("text", ["", "72.0001", "-72", "720", "7.2", "The answer is 7, not 72", "0.72"])
def test_other_numbers_are_not(text: str) -> None:
    assert not same_number("72", text)


def test_equality_is_exact() -> None:
    assert same_number("0.1", "1/10")
    assert not same_number("1/3", "0.333333")
    assert not same_number("100000000000000000001", "100000000000000000002")


def test_a_right_answer_without_a_number_is_refused() -> None:
    with pytest.raises(SpartaError, match="holds no number"):
        same_number("many", "5")


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1,",
        "1 ",
        "1/",
        ".",
        "answer is ",
        "= ",
        "####",
        "#### 1 ",
        "#### Step\n",
        "-",
        "$",
        "\\boxed{",
        "\n",
        " ",
        "answer:\n",
        "so ",
        "wait 5 ",
        "not 5 or ",
    ],
)
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    start = time.process_time()
    number_of(unit * (100_000 // len(unit)) + " 5")
    assert time.process_time() - start < 10  # quadratic time would be minutes


@pytest.mark.skipif(not RAW.is_dir(), reason="the data sets' raw files are not here")
def test_every_gold_answer_of_gsm8k_is_right_against_itself_and_no_neighbour_is() -> None:
    rows = [json.loads(line) for line in (RAW / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    golds = [row["answer"].rpartition("####")[2].strip() for row in rows]
    assert len(golds) == 1319
    for row, gold in zip(rows, golds, strict=True):
        assert same_number(gold, row["answer"])
        assert same_number(gold, f"It takes 3 steps, so the answer is ${gold}. Of 17, that is.")
        assert same_number(gold, f"Then 4 of them make \\boxed{{{gold}}} dollars for 5")
        assert same_number(gold, f"#### {gold} - 1 + 1 = {gold}")
        assert same_number(gold, f"#### Step 2: Conclude\nThe final number is {gold}.\n\nOf 17, that is.")
        assert same_number(
            gold, f"#### Step 2: Conclude\nThat is 1 of 17: \\boxed{{{gold}}}.\n\nOf 17, that is."
        )
        assert not same_number(gold, f"The answer is {gold}1.")
