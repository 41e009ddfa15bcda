"""Which choice answers decide for: never another one, and the right one wherever a person can tell.

Self-made, in the manner of what models write. A row has the answer and the letters of A to D that are right for it; N is none.
"""

import pytest
from support.cases import cases

from sparta.grading.letters import letter_of, same_letter, same_word
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.knowledge_crosswords import KCROSS
from sparta.tasks.benchmarks.normad import COUNTRY, WORDS

N = None

# Letters in LaTeX, markdown and other shapes.
SHAPES = [
    ("Ⓑ", ("B",)),
    ("ⓑ", ("B", N)),
    ("Ｂ", ("B",)),
    ("（Ｂ）", ("B",)),
    ("⒝", ("B", N)),
    ("🅑", ("B", N)),
    ("🅱", ("B", N)),
    ("𝐁", ("B", N)),
    ("$\\mathbf{B}$", ("B",)),
    ("\\textbf{B}", ("B",)),
    ("\\(\\text{B}\\)", ("B",)),
    ("\\[\\boxed{B}\\]", ("B",)),
    ("$\\boxed{\\mathrm{B}}$", ("B",)),
    ("\\boxed{\\textbf{(B)}}", ("B",)),
    ("\\boxed{\\text{(B) } 45}", ("B",)),
    ("\\boxed{B) 45}", ("B",)),
    ("\\fbox{B}", ("B",)),
    ("\\boxed{\\mathbf{B}}", ("B",)),
    ("\\boxed{ B }", ("B",)),
    ("**(B)**", ("B",)),
    ("__B__", ("B",)),
    ("`B`", ("B",)),
    ("<b>B</b>", ("B", N)),
    ("'B'", ("B",)),
    ("“B”", ("B",)),
    ("Answer: Ｂ", ("B",)),
    ("答案：Ｂ", ("B",)),
    ("👉 B", ("B",)),
    ("✅ B. Paris", ("B",)),
    ("➡️ (B)", ("B",)),
]
# Other languages.
ABROAD = [
    ("答案是C", ("C",)),
    ("答案是 C。", ("C",)),
    ("正确答案：C", ("C",)),
    ("正确答案是（B）", ("B",)),
    ("选B", ("B", N)),
    ("我选择C", ("C", N)),
    ("La respuesta es C.", ("C",)),
    ("La respuesta correcta es la C", ("C", N)),
    ("Respuesta: C", ("C",)),
    ("Die Antwort ist C.", ("C",)),
    ("Richtige Antwort: C", ("C",)),
    ("La réponse est C.", ("C",)),
    ("La bonne réponse est C.", ("C",)),
    ("Réponse : C", ("C", N)),
    ("La risposta è C.", ("C",)),
    ("A resposta correta é C.", ("C",)),
    ("Ответ: C", ("C",)),
    ("答えはCです", ("C",)),
    ("정답은 C입니다", ("C",)),
    ("A resposta é B", ("B",)),
]
# Declared.
DECLARED = [
    ("Answer - B", ("B",)),
    ("**Answer - B**", ("B", N)),
    ("Final answer — (B)", ("B", N)),
    ("Answer -> B", ("B",)),
    ("Answer=>B", ("B", N)),
    ("Answer B", ("B",)),
    ("The answer's B.", ("B", N)),
    ("My choice: B", ("B",)),
    ("I'd go with B.", ("B",)),
    ("I will choose option B because it is right", ("B",)),
    ("B it is.", ("B", N)),
    ("Definitely B.", ("B", N)),
    ("So, B.", ("B",)),
    ("The letter is B", ("B",)),
    ("Correct: B", ("B", N)),
    ("Correct answer: (B) Paris", ("B",)),
    ("The best choice would be (B).", ("B",)),
    ("Choose B", ("B",)),
    ("Option (B) Paris", ("B",)),
    ("[B] Paris", ("B",)),
    ("B - Paris", ("B",)),
    ("B – Paris", ("B",)),
    ("B: Paris", ("B",)),
    ("B, Paris", ("B",)),
    ("B.\n\nBecause A is wrong.", ("B",)),
]
# Denied.
DENIED = [
    ("The answer is not A but B.", ("B",)),
    ("Not A, B.", ("B", N)),
    ("The answer is not A, it is B.", ("B",)),
    ("The answer isn't A but C.", ("C",)),
    ("Neither A nor B but C.", ("C", N)),
    ("Neither A nor B is correct; the answer is C.", ("C",)),
    ("Neither A nor B.", (N,)),
    ("It's not B.", (N,)),
    ("The answer is not B.", (N,)),
    ("Anything but A.", (N,)),
    ("B is wrong.", (N,)),
    ("A, B and D are incorrect.", (N, "C")),
    ("All of A, B and C are wrong, leaving D.", ("D", N)),
    ("Eliminate A and B. Between C and D, C is correct.", ("C", N)),
    ("A is incorrect. B is incorrect. C is incorrect. D is correct.", ("D",)),
    ("A is tempting, but B is correct.", ("B",)),
    ("It can't be A, so B.", ("B",)),
    ("If A were true, B would fail. The answer is D.", ("D",)),
    ("Not A. Not B. Not C. D.", ("D", N)),
]
# Corrected, or about to be.
CORRECTED = [
    ("Answer: A. Actually no, B.", ("B", N)),
    ("Answer: A. Wait, that is wrong. Answer: B", ("B",)),
    ("Answer: A. Wait, I misread the question.", (N,)),
    ("The answer is A. Hold on, let me reconsider. It is C.", ("C", N)),
    ("\\boxed{A} wait, \\boxed{", (N,)),
    ("\\boxed{A} ... wait, \\boxed{C}", ("C",)),
    ("\\boxed{A} \\boxed{", (N,)),
    ("A\n\nCorrection: B", ("B", N)),
    ("Answer: A\n\nOops, I made a mistake: B", ("B", N)),
    ("The answer is B. Let me recheck: yes, B is correct.", ("B",)),
    ("The answer is B. Let me recheck. A is wrong, C is wrong. Indeed it is right.", ("B", N)),
]
# For several, or for none.
SEVERAL = [
    ("A and B", (N,)),
    ("A, B", (N,)),
    ("A & B", (N,)),
    ("A/B", (N,)),
    ("AB", (N,)),
    ("A or B", (N,)),
    ("Both A and C", (N,)),
    ("A. Paris\nB. Rome\nC. Oslo\nD. Bern", (N,)),
    ("(A), (C)", (N,)),
    ("\\boxed{A, C}", (N,)),
    ("\\boxed{AC}", (N,)),
    ("\\boxed{A} or \\boxed{B}", (N,)),
    ("Answer: A and D", (N,)),
    ("Answer: A, D", (N,)),
    ("A\nB", (N,)),
    ("1. A\n2. B", (N,)),
    ("All of the above", (N,)),
    ("None of the above", (N,)),
    ("Cannot be determined.", (N,)),
    ("It depends.", (N,)),
    ("A or possibly B", (N,)),
]
# Texts that run on with another question.
RUN_ON = [
    ("B\n\nQuestion: next?\nA. 1\nB. 2\nAnswer: C", ("B",)),
    ("The answer is B.\n\nQ: next?\nA. 1\nB. 2\nAnswer: C", ("B",)),
    ("Answer: B<|im_end|>\n<|im_start|>user\nAnswer: C", ("B",)),
    ("B. Paris\n\n### Question: next\nAnswer: C", ("B",)),
    ("A or B\n\nQuestion: next?\nAnswer: C", (N,)),
    ("Let me see.\n\nQuestion: X?\nA. 1\nB. 2\nAnswer: B", ("B",)),
    ("Question: X?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B", ("B",)),
    ("B</s>Answer: C", ("B",)),
    ("Answer: B\n\nHuman: and now?\n\nAssistant: C", ("B",)),
]
# Lists that say of each choice whether it is right.
TICKED = [
    ("A. No\nB. No\nC. Yes\nD. No", ("C", N)),
    ("A ❌\nB ✅\nC ❌\nD ❌", ("B", N)),
    ("A: False\nB: False\nC: False\nD: True", ("D", N)),
    ("A) Incorrect\nB) Correct\nC) Incorrect", ("B", N)),
    ("A. Yes\nB. Yes\nC. No\nD. No", (N,)),
    ("❌ A\n✅ B\n❌ C", ("B", N)),
    ("- A: wrong\n- B: right\n- C: wrong", ("B", N)),
    ("A. True", ("A", N)),
]
# JSON and tags.
TAGGED = [
    ('{"answer": "B"}', ("B",)),
    ('{"answer": "B", "reason": "A is wrong"}', ("B",)),
    ('```json\n{"answer": "B"}\n```', ("B",)),
    ('{"choice": "B"}', ("B",)),
    ("<answer>B</answer>", ("B",)),
    ("<answer>(B) Paris</answer>", ("B",)),
]
# Thinking.
THINKING = [
    ("<think>A</think>B", ("B",)),
    ("A is right.</think>\nB", ("B",)),
    ("<think>The answer is A", (N,)),
    ("The answer is B. <think>or A", (N,)),
]
# A letter alone, and letters that are no choices.
BARE = [
    ("Paris", (N,)),
    ("", (N,)),
    ("I think it is Paris", (N,)),
    ("A bit unclear", (N,)),
    ("The answer is a bit unclear", (N,)),
    ("Answer: E", (N,)),
    ("Answer: F", (N,)),
    ("Answer:", (N,)),
    ("vitamin C", (N,)),
    ("Hepatitis B virus", (N,)),
    ("A", ("A",)),
    ("a", ("A",)),
    ("B?", ("B", N)),
    ("B!", ("B",)),
    ("(b)", ("B",)),
    ("b)", ("B",)),
    ("b.", ("B",)),
    ("option c", ("C",)),
]
# What is said beside the answer.
ASIDES = [
    ("The answer is B. If it asked for the opposite, the answer would be A.", ("B",)),
    ("The answer is B. Many students would say the answer is A.", ("B",)),
    ("Some people choose A, but the answer is B.", ("B",)),
    ("Answer: B (not A)", ("B",)),
    ("Between A and B, I choose A.", ("A",)),
    ("The correct answer is not listed.", (N,)),
    ("A common mistake is to choose A. The answer is B.", ("B",)),
    ("The answer is B. A common mistake is to choose A.", ("B",)),
    ("The answer is B. One might think it is A.", ("B", N)),
    ("B. You might think the answer is A, but it is not.", ("B", N)),
    ("I would eliminate A and C. So B or D. I say D.", ("D",)),
    ("Answer: B\n\nNote that A would be the answer if x were 3.", ("B",)),
    ("Answer: **B** — A would be right only if x > 3.", ("B",)),
    ("Not sure, but B.", ("B", N)),
    ("The answer is either A or B. I go with B.", ("B",)),
    ("(A) no (B) yes (C) no", ("B", N)),
    ("Answer: (A) and not (B)", ("A", N)),
    ("The answer is A rather than B.", ("A",)),
    ("The answer is A instead of B.", ("A",)),
    ("The answer is definitely not A; it's C.", ("C", N)),
    ("Answer: None", (N,)),
    ("Correct option: B) 5 and not C) 6", ("B", N)),
    ("A: incorrect.\nB: incorrect.\nC: correct.\nD: incorrect.", ("C", N)),
    ("The answer is B\n\nExplanation: A patient with", ("B",)),
    ("Option B is correct. Option A is incorrect.", ("B",)),
    ("The answer: b", ("B",)),
    ("ANSWER: B", ("B",)),
    ("answer:B\nanswer:C", ("C",)),
    ("So the answer is A... no, B.", ("B", N)),
    ("I think A is not right. B.", ("B", N)),
    ("Final answer: A. Final answer: B.", ("B",)),
    ("The answer is $\\boxed{B}$, not $\\boxed{A}$.", ("B", N)),
    ("\\boxed{A} is wrong, so \\boxed{B}", ("B",)),
    ("\\boxed{B} is right; \\boxed{A} is wrong.", ("B", N)),
]
EVERY = [
    *SHAPES,
    *ABROAD,
    *DECLARED,
    *DENIED,
    *CORRECTED,
    *SEVERAL,
    *RUN_ON,
    *TICKED,
    *TAGGED,
    *THINKING,
    *BARE,
    *ASIDES,
]


@pytest.mark.parametrize("row", cases("letters.jsonl", "answer"))
def test_the_rows_beside_the_repository_are_read_right(row: dict) -> None:
    letter = letter_of(row["answer"], tuple(row["choices"]))
    assert letter == row["letter"] or (letter is None and row.get("or_ungraded"))


@pytest.mark.parametrize("row", cases("letters.jsonl", "answer"))
def test_the_rows_beside_the_repository_are_never_graded_wrong(row: dict) -> None:
    for gold in row["choices"]:
        same = same_letter((gold,), row["answer"], tuple(row["choices"]))
        assert same in (
            (gold == row["letter"],)
            if not row.get("or_ungraded") and row["letter"]
            else (gold == row["letter"], None)
        )


@pytest.mark.parametrize(("answer", "letters"), EVERY)
def test_an_answer_is_read_as_a_careful_reader_would(answer: str, letters: tuple[str | None, ...]) -> None:
    letter = letter_of(answer, "ABCD")
    assert letter in letters
    for gold in "ABCD":
        assert same_letter((gold,), answer, "ABCD") in ((gold == letter,) if letter else (False, None))


def test_of_what_can_be_told_most_is_read() -> None:
    tellable = [answer for answer, letters in EVERY if letters != (N,)]
    assert sum(letter_of(answer, "ABCD") is not None for answer in tellable) > 0.85 * len(tellable)


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("The answer is B.", True),
        ("The answer is A.", False),
        # A person can tell that it decides for none, or for several.
        ("I do not know", False),
        ("", False),
        ("A patient with gout", False),
        ("B or C", None),
        ("Answer: B or C", False),
        ("A. Paris\nB. Rome\nC. Oslo", False),
        # A person could not.
        ("Answer: A. Actually no, B.", None),
        ("\\boxed{B} wait, \\boxed{", None),
        ("<think>The answer is B", None),
        ("It could be (A), or else (B).", None),
    ],
)
def test_an_answer_that_cannot_be_told_has_no_grade(answer: str, grade: bool | None) -> None:
    assert same_letter(("B",), answer, "ABCD") is grade
    item = Item("x", (), choices=dict.fromkeys("ABCD", "it"), answer="B")
    assert KCROSS.grade(item, answer) == ({} if grade is None else {"accuracy": float(grade)})


def test_any_of_several_right_letters_is_right() -> None:
    assert same_letter(("A", "C"), "The answer is C.", "ABCD") is True
    assert same_letter(("A", "C"), "The answer is B.", "ABCD") is False


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("No", True),
        ("No, it is rude.", True),
        ("Yes", False),
        ("I do not know", False),
        ("It is rude.", False),
        ("Yes and no.", None),
        ("<think>No", None),
        ("<think>Yes</think>No", True),
    ],
)
def test_a_verdict_in_words_is_graded_alike(answer: str, grade: bool | None) -> None:
    assert same_word("no", answer, WORDS) is grade
    item = Item("x", (), answer="no")
    assert COUNTRY.grade(item, answer) == ({} if grade is None else {"accuracy": float(grade)})
