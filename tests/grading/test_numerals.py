"""How numbers are written, and what each can be read as."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparta.grading.number_words import spelled_in
from sparta.grading.numerals import numerals_in, plain

READ = [
    ("18", [18]),
    ("-3", [-3]),
    ("−3", [-3]),
    ("minus 3", [-3]),
    ("negative 3", [-3]),
    ("10 minus 3", [10, 3]),
    ("10-3", [10, 3]),
    ("x = - 3", [-3]),
    ("1,234.50", [Fraction("1234.5")]),
    ("1.234,50", [Fraction("1234.5")]),
    ("12,34,567", [1234567]),
    ("1,20,000.5", [Fraction("120000.5")]),
    ("1.234.567", [1234567]),
    ("1 234 567", [1234567]),
    ("1\u202f234,5", [Fraction("1234.5")]),
    ("1'234'567", [1234567]),
    ("1_000", [1000]),
    ("0,5", [Fraction(1, 2)]),
    (".5", [Fraction(1, 2)]),
    ("3/4", [Fraction(3, 4)]),
    ("1 1/2", [Fraction(3, 2)]),
    ("2½", [Fraction(5, 2)]),
    ("2 ¼", [Fraction(9, 4)]),
    (r"\frac{3}{4}", [Fraction(3, 4)]),
    (r"-\frac34", [Fraction(-3, 4)]),
    (r"1\dfrac{1}{2}", [Fraction(3, 2)]),
    ("10^3", [1000]),
    ("10^{-3}", [Fraction(1, 1000)]),
    ("2**3", [8]),
    ("10³", [1000]),
    ("1e3", [1000]),
    ("1.5E-3", [Fraction(3, 2000)]),
    (r"2 \times 10^3", [2000]),
    ("2×10³", [2000]),
    ("1.5 million", [1500000]),
    ("5k", [5000]),
    ("3 hundred", [300]),
    ("5 lakhs", [500000]),
    ("$1,200", [1200]),
    ("-$5", [-5]),
    ("Rs.1200", [1200]),
    ("€1.200,50", [Fraction("1200.5")]),
    ("１２３", [123]),
    ("**18** 5", [18, 5]),
    ("5 cm^3", [5]),
    ("100m2", [100]),
    ("18th", [18]),
    ("H2O", []),
    ("x_2", []),
    ("3.5.", [Fraction(7, 2)]),
]

UNTOLD = [
    "1,5",
    "1 234",
    "1,2345",
    "3,4,5",
    "1.2.3",
    "9:30",
    "1/2/2024",
    "7/0",
    r"\sqrt{16}",
    r"\log_2 8",
    "√16",
    "2^3^2",
    "10^99999",
    "5M",
    "1 million 200 thousand",
]

OTHERS = [
    ("1.234", "1.234", 1234),
    ("1,234", "1234", Fraction("1.234")),
    ("50%", "50", Fraction(1, 2)),
    ("50 percent", "50", Fraction(1, 2)),
    ("1.5 million", "1500000", Fraction("1.5")),
    ("2 dozen", "2", 24),
]

SPELLED = [
    ("twelve", 12),
    ("twenty-one", 21),
    ("Twenty one", 21),
    ("one hundred", 100),
    ("a hundred and five", 105),
    ("one thousand two hundred and thirty-four", 1234),
    ("two million three hundred thousand", 2300000),
    ("minus three", -3),
    ("two and a half", Fraction(5, 2)),
    ("zero", 0),
    ("one twenty", None),
    ("two three", None),
    ("three thousand million", None),
]


@pytest.mark.parametrize(("text", "values"), READ)
def test_a_number_is_read_in_any_of_its_forms(text: str, values: list[int | Fraction]) -> None:
    assert [numeral.value for numeral in numerals_in(plain(text))] == values


@pytest.mark.parametrize("text", UNTOLD)
def test_what_could_as_well_be_another_number_has_no_value(text: str) -> None:
    assert numerals_in(plain(text))[0].value is None


@pytest.mark.parametrize(("text", "value", "other"), OTHERS)
def test_what_can_be_read_in_two_ways_has_the_likelier_value_and_names_the_other(
    text: str, value: str, other: int | Fraction
) -> None:
    [numeral] = numerals_in(text)
    assert (numeral.value, numeral.others) == (Fraction(value), {other})


@given(st.integers(-(10**9), 10**9), st.integers(0, 99))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_a_number_is_the_same_in_every_country(whole: int, cents: int) -> None:
    exact = Fraction(f"{whole}.{cents:02}")
    english = f"{whole:,}.{cents:02}"
    german = english.translate(str.maketrans(",.", ".,"))
    swiss = english.replace(",", "'")
    french = german.replace(".", "\u202f")
    for written in (english, german, swiss, french):
        [numeral] = numerals_in(written)
        assert numeral.value == exact or (numeral.value is None and abs(whole) < 1000)


@pytest.mark.parametrize(("text", "value"), SPELLED)
def test_a_number_in_words_is_read(text: str, value: int | Fraction | None) -> None:
    spelled = spelled_in(f"There are {text}.")
    assert spelled is not None
    assert spelled.value == value


@pytest.mark.parametrize("text", ["one of them", "two-digit", "some", "the one that", "often", "tension", ""])
def test_words_that_only_look_like_numbers_are_none(text: str) -> None:
    assert spelled_in(text) is None


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1,",
        "1 ",
        "1 234 ",
        "1/",
        "5^",
        "1e",
        "½",
        "-",
        "minus ",
        r"\frac{1}{2}",
        " ",
        "1:",
        "twelve ",
        "one hundred ",
    ],
)
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.process_time()
        numerals_in(plain(text))
        spelled_in(text)
        return time.process_time() - start

    once = min(seconds(10_000) for _ in range(3))
    # Ten times the length: quadratic time would be a hundred times as much.
    assert seconds(100_000) < 40 * max(once, 0.01)
