"""Whether answers say what the right answer says, as mathematics: never wrong, and told wherever a person can tell.

Self-made, in the manner of what models write. A row has the right answer, the answer, and the grades that are right for it; N is no grade.
"""

import pytest
from support.cases import cases

from sparta.grading.inequalities import as_intervals
from sparta.grading.mathematical import same_mathematics
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.mathematics import EASY

N, T, F = None, True, False

# Boxes that are taken back or never end, texts that run on, thinking.
CORRECTED = [
    ("5", "\\boxed{5} wait, \\boxed{", (N,)),
    ("5", "\\boxed{5} \\boxed{", (N,)),
    ("6", "\\boxed{5}. Wait, no: \\boxed{6}", (T,)),
    ("5", "\\boxed{5}. Wait, that is wrong. It should be 6.", (N,)),
    ("5", "\\boxed{5}. Let me verify: 2+3=5.", (T,)),
    ("6", "\\boxed{6}\n\nProblem: next\nSolution: \\boxed{7}", (T,)),
    ("7", "\\boxed{6}\n\nProblem: next\nSolution: \\boxed{7}", (F,)),
    ("6", "\\boxed{6}<|im_end|>\\boxed{7}", (T,)),
    ("6", "Problem: what?\nSolution: \\boxed{6}", (T,)),
    ("6", "<think>\\boxed{7}</think>\\boxed{6}", (T,)),
    ("6", "<think>\\boxed{6}", (N,)),
    ("6", "\\boxed{7}</think>The answer is 6.", (T,)),
    ("6", "\\boxed{6", (F, N, T)),
]
# Intervals and inequalities.
INTERVALS = [
    ("(-\\infty, 3]", "\\boxed{x \\le 3}", (T,)),
    ("(-\\infty, 3]", "\\boxed{x < 3}", (F,)),
    ("(-\\infty, 3)", "\\boxed{x < 3}", (T,)),
    ("[2,5)", "\\boxed{5 > x \\ge 2}", (T,)),
    ("[2,5)", "\\boxed{2 < x < 5}", (F,)),
    ("(3,\\infty)", "\\boxed{x > 3}", (T,)),
    ("(3,\\infty)", "\\boxed{3 < x}", (T,)),
    ("(3,\\infty)", "\\boxed{x \\geq 3}", (F,)),
    ("(-\\infty,-2)\\cup(3,\\infty)", "\\boxed{x < -2 \\text{ or } x > 3}", (T,)),
    ("(-\\infty,-2)\\cup(3,\\infty)", "\\boxed{x > 3 \\text{ or } x < -2}", (T,)),
    ("(-\\infty,-2)\\cup(3,\\infty)", "\\boxed{x < -2 \\text{ or } x \\ge 3}", (F,)),
    ("x < 3", "\\boxed{(-\\infty,3)}", (T,)),
    ("x < 3", "\\boxed{(-\\infty,3]}", (F,)),
    ("2 \\le x < 5", "\\boxed{[2,5)}", (T,)),
    ("2 \\le x < 5", "\\boxed{x \\in [2,5)}", (T,)),
    ("x \\in [2,5)", "\\boxed{2 \\le x < 5}", (T,)),
    ("[2,5)", "\\boxed{2 \\leqslant x < 5}", (T,)),
    ("\\left[\\frac{1}{2},3\\right]", "\\boxed{\\frac12 \\le x \\le 3}", (T,)),
    ("\\left[\\frac{1}{2},3\\right]", "\\boxed{0.5 \\le x \\le 3}", (T,)),
    ("(2,5)", "\\boxed{x > 2 \\text{ and } x < 5}", (T,)),
    ("[-1,1]", "\\boxed{-1\\leq x\\leq 1}", (T,)),
    ("(0,1)", "The answer is $0 < x < 1$.", (T,)),
    ("(2,3)", "\\boxed{x=2, y=3}", (T,)),
]
# Right answers in words and letters.
WORDS = [
    ("\\text{Tuesday}", "The answer is Tuesday.", (T,)),
    ("\\text{Tuesday}", "**Answer:** Tuesday", (T,)),
    ("\\text{Tuesday}", "The answer is Monday, not Tuesday.", (F, N)),
    ("\\text{Tuesday}", "The answer is not Tuesday.", (F, N)),
    ("\\text{Tuesday}", "It falls on a Monday.", (F,)),
    ("\\text{Tuesday}", "It falls on a Tuesday.", (T, N)),
    ("\\text{Tuesday}", "\\boxed{tuesday}", (T,)),
    ("\\text{Tuesday}", "\\boxed{\\text{Monday}}", (F,)),
    ("\\text{Evelyn}", "Evelyn", (T,)),
    ("\\text{even}", "\\boxed{Even}", (T,)),
    ("\\text{even}", "The answer is odd.", (F,)),
    ("\\text{(A)}", "\\boxed{\\text{A}}", (T,)),
    ("\\text{(A)}", "\\boxed{(B)}", (F,)),
    ("\\text{(A)}", "The answer is (B).", (F,)),
    ("\\text{(A)}", "The answer is A because it is.", (T,)),
    ("\\text{(A)}", "The answer is not A but B.", (F,)),
    ("\\text{(C)}", "A or C", (F, N)),
    ("\\text{(E)}", "The answer is (E).", (T,)),
    ("\\text{odd}", "The answer is odd, since f(-x) = -f(x).", (T,)),
    ("\\text{June 20}", "The answer is June 20.", (T, N)),
]
# Stated without a box.
STATED = [
    ("6", "The answer is 6.", (T,)),
    ("6", "The answer is $6$.", (T,)),
    ("6", "The answer is \\(6\\).", (T,)),
    ("6", "The final answer is **6**", (T,)),
    ("6", "The answer is not 5 but 6.", (T,)),
    ("5", "The answer is not 5 but 6.", (F,)),
    ("5", "The answer is not 5.", (F, N)),
    ("6", "The answer is 6. There were 5 of them.", (T,)),
    ("5", "The answer is 6. There were 5 of them.", (F,)),
    ("\\frac{1}{2}", "The answer is 1/2.", (T,)),
    ("\\frac{1}{2}", "The answer is 0.5", (T,)),
    ("\\frac{1}{2}", "The answer is $\\frac12$.", (T,)),
    ("x^2+1", "The answer is $x^2+1$.", (T,)),
    ("x^2+1", "The answer is $y = x^2 + 1$.", (T,)),
    ("(1,2)", "The answer is (1,2).", (T,)),
    ("(1,2)", "The answer is $(2,1)$.", (F,)),
    ("(1,2)", "The answer is $[1,2]$.", (F,)),
    ("\\sqrt{2}", "The answer is $\\sqrt{2}$.", (T,)),
    ("\\sqrt{2}", "The answer is 1.414.", (F,)),
    ("16", "The answer is x = 16", (T,)),
    ("6", "The answer is 5. Wait, no, the answer is 6.", (T,)),
    ("1000", "The answer is 1,000.", (T,)),
    ("6", "Answer:\n\n$6$", (T,)),
    ("6", "The answer is:\n\\[\n6\n\\]", (T,)),
    ("6", "So the answer is\n$$x = 6.$$", (T,)),
    ("12", "12", (T,)),
    ("3", "$x = 3$", (T,)),
]
# Notations.
NOTATIONS = [
    ("1234", "\\boxed{1{,}234}", (T,)),
    ("1234", "\\boxed{1\\,234}", (T,)),
    ("1234", "\\boxed{1,234.00}", (T,)),
    ("1000000", "\\boxed{1,000,000}", (T,)),
    ("1000000", "\\boxed{10^6}", (T,)),
    ("1000000", "\\boxed{1 \\text{ million}}", (T, N, F)),
    ("0.001", "\\boxed{10^{-3}}", (T,)),
    ("\\frac{3}{4}", "\\boxed{0.75}", (T,)),
    ("\\frac{3}{4}", "\\boxed{75\\%}", (T,)),
    ("\\frac{3}{4}", "\\boxed{\\frac{6}{8}}", (T,)),
    ("-3", "\\boxed{-3}", (T,)),
    ("-3", "\\boxed{3}", (F,)),
    ("-3", "\\boxed{- 3}", (T,)),
    ("3\\sqrt{2}", "\\boxed{\\sqrt{18}}", (T,)),
    ("\\frac{\\sqrt{3}}{3}", "\\boxed{\\frac{1}{\\sqrt{3}}}", (T,)),
    ("1,2", "\\boxed{2,1}", (T,)),
    ("1,2", "\\boxed{1}, \\boxed{2}", (T,)),
    ("1,2", "\\boxed{x=1, x=2}", (T,)),
    ("1,2", "\\boxed{\\{1,2\\}}", (T,)),
    ("1,2", "\\boxed{1 \\text{ and } 2}", (T,)),
    ("1,2", "\\boxed{1,2,3}", (F,)),
    ("1,2", "\\boxed{1}", (F,)),
    ("\\pm 1", "\\boxed{1,-1}", (T, F)),
    ("90", "\\boxed{90^\\circ}", (T,)),
    ("90^\\circ", "\\boxed{90}", (T,)),
    ("10", "\\boxed{10\\text{ cm}}", (T,)),
    ("10", "\\boxed{\\$10}", (T,)),
    ("\\$10.50", "\\boxed{10.5}", (T,)),
    ("x=5", "\\boxed{5}", (T,)),
    ("5", "\\boxed{x = 5}", (T,)),
    ("y=2x+1", "\\boxed{2x+1}", (T,)),
    ("11_2", "\\boxed{11_3}", (F,)),
    ("11_2", "\\boxed{1011_2}", (F,)),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\boxed{\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}}", (T,)),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\boxed{\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}}", (F,)),
    ("2+3i", "\\boxed{3i+2}", (T,)),
    ("2+3i", "\\boxed{2-3i}", (F,)),
    ("\\frac{\\pi}{2}", "\\boxed{\\pi/2}", (T,)),
    ("\\frac{\\pi}{2}", "\\boxed{1.57}", (F,)),
    ("\\binom{5}{2}", "\\boxed{10}", (T,)),
    ("5!", "\\boxed{120}", (T,)),
    ("2^{10}", "\\boxed{1024}", (T,)),
    ("6", "\\boxed{\\text{six}}", (F, N, T)),
    ("6", "\\boxed{}", (F,)),
    ("6", "", (F,)),
    ("6", "no idea", (F,)),
    ("x^2+2x+1", "\\boxed{(x+1)^2}", (T,)),
    ("x+1", "\\boxed{x-1}", (F,)),
    ("\\log_2 3", "\\boxed{\\frac{\\ln 3}{\\ln 2}}", (T,)),
]
EVERY = [*CORRECTED, *INTERVALS, *WORDS, *STATED, *NOTATIONS]


@pytest.mark.parametrize("row", cases("mathematics.jsonl", "answer"))
def test_the_rows_beside_the_repository_are_graded_right(row: dict) -> None:
    assert same_mathematics(row["gold"], row["answer"]) is row["right"]


@pytest.mark.parametrize(("gold", "answer", "grades"), EVERY)
def test_an_answer_is_graded_as_a_careful_reader_would(
    gold: str, answer: str, grades: tuple[bool | None, ...]
) -> None:
    assert same_mathematics(gold, answer) in grades


def test_of_what_can_be_told_most_is_graded() -> None:
    tellable = [(gold, answer) for gold, answer, grades in EVERY if T in grades]
    assert sum(same_mathematics(*row) is True for row in tellable) > 0.9 * len(tellable)


def test_an_answer_that_cannot_be_told_has_no_grade() -> None:
    item = Item("x", (), answer="5")
    assert EASY.grade(item, "\\boxed{5} wait, \\boxed{") == {}
    assert EASY.grade(item, "<think>\\boxed{5}") == {}
    assert EASY.grade(item, "She has 5.\n\nProblem: another\n\\boxed{7}") == {}
    assert EASY.grade(item, "\\boxed{}") == {"accuracy": 0.0}


@pytest.mark.parametrize(
    ("text", "intervals"),
    [
        ("x \\le 3", "(-\\infty,3]"),
        ("3 > x", "(-\\infty,3)"),
        ("x \\geqslant 3", "[3,\\infty)"),
        ("2 \\le x < 5", "[2,5)"),
        ("5 > x \\ge 2", "[2,5)"),
        ("\\frac{1}{2} < \\theta", "(\\frac{1}{2},\\infty)"),
        ("x<-2 \\text{ or } x>3", "(-\\infty,-2)\\cup(3,\\infty)"),
        ("x>2 \\text{ and } x<5", "(2,5)"),
        ("x \\ne 3", None),
        ("x < y < 3", None),
        ("x < 3 < 5", None),
        ("x > 2 \\text{ and } y < 5", None),
        ("x > 2 \\text{ and } x > 5", None),
        ("x \\le", None),
        ("(2,5)", None),
        ("x = 5", None),
        ("5", None),
        ("", None),
    ],
)
def test_inequalities_of_one_variable_are_intervals(text: str, intervals: str | None) -> None:
    assert as_intervals(text) == intervals
