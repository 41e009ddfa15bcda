"""Whether answers state a number: never wrong, and told wherever a person can tell.

Self-made, in the manner of what models write. A row has the right number, the answer, and the grades that are right for it; N is no grade.
"""

import pytest
from support.cases import cases
from support.real_data import RAW, needs_raw_data

from sparta.grading.mathematical import same_mathematics
from sparta.grading.numbers import number_of, same_number
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.gsm8k import GSM8K

N, T, F = None, True, False

# Texts that run on after the answer.
RUN_ON = [
    ("18", "#### 18\n\nQuestion: Tom has 3 apples.\nAnswer: 3\n#### 3", (T,)),
    ("18", "The answer is 18.\n\nProblem: next, with 7\nSolution: 7", (T,)),
    ("18", "18\n\nQ: 2+2?\nA: 4", (T,)),
    ("18", "#### 18<|im_end|>\n<|im_start|>user\nWhat is 3+4?<|im_end|>\n#### 7", (T,)),
    ("7", "Question: how many?\nAnswer: 7", (T,)),
    ("7", "Let me restate.\n\nQuestion: how many?\nAnswer: 7", (T,)),
    ("4", "She has 18.\n\nQuestion: next?\n#### 4", (F, N)),
    ("18", "She has 18.\n\nQuestion: next?\n#### 4", (T, N)),
    ("18", "She makes 18.\n\nLet me know if you have 2 more questions!", (T,)),
    ("18", "She makes $18. I hope this helps you 100%!", (T,)),
]
# What is denied or corrected.
CORRECTED = [
    ("20", "The answer is not 25 but 20.", (T,)),
    ("25", "The answer is not 25 but 20.", (F,)),
    ("20", "The answer isn't 25, it's 20.", (T, N)),
    ("25", "The answer isn't 25, it's 20.", (F, N)),
    ("20", "The answer is not 25. It is 20.", (T,)),
    ("25", "The answer is not 25.", (F, N)),
    ("20", "The answer is 20, not 25.", (T,)),
    ("25", "The answer is 20, not 25.", (F,)),
    ("20", "It is 20 rather than 25", (T,)),
    ("20", "Instead of 25, the answer is 20.", (T,)),
    ("6", "The answer is 5. Wait, that's wrong. It should be 6.", (T, N)),
    ("5", "The answer is 5. Wait, that's wrong. It should be 6.", (F, N)),
    ("6", "The answer is 5. Wait, no: the answer is 6.", (T,)),
    ("5", "The answer is 5. Wait, no: the answer is 6.", (F,)),
    ("6", "\\boxed{5} wait, \\boxed{6}", (T,)),
    ("5", "\\boxed{5} wait, \\boxed{", (N,)),
    ("6", "\\boxed{5} wait, \\boxed{6", (N,)),
    ("6", "The answer is 5, no, 6.", (T, N)),
    ("5", "The answer is 5, no, 6.", (F, N)),
    ("6", "#### 5\nOops, I made a mistake: 6", (T, N)),
    ("5", "#### 5\nOops, I made a mistake: 6", (F, N)),
    ("5", "The answer is 5. Let me recheck: 2+3=5. Yes, that is correct.", (T, N)),
    ("6", "The answer is 5. Actually, let me recheck. \\boxed{6}", (T,)),
]
# Signs, and dashes that are none.
SIGNS = [
    ("-3", "The answer is minus 3", (T,)),
    ("3", "The answer is minus 3", (F,)),
    ("-3", "The answer is negative 3.", (T,)),
    ("-3", "The answer is −3", (T,)),
    ("-3", "The answer is - 3", (T,)),
    ("3", "The answer is - 3", (F,)),
    ("-3", "x = - 3", (T, N)),
    ("-3", "#### -3", (T,)),
    ("-3", "#### minus 3", (T,)),
    ("7", "10 minus 3 = 7", (T,)),
    ("7", "The answer is 10 minus 3, which is 7", (T, N)),
    ("3", "The answer is 10 minus 3, which is 7", (F, N)),
    ("-0.75", "The answer is -\\frac{3}{4}", (T,)),
    ("-5", "The answer is -$5", (T,)),
    ("-5", "The answer is $-5", (T,)),
    ("3", "Answer:\n- 3 apples", (T, N)),
    ("16", "Answer:\n- 16 apples", (T, N)),
    ("-2", "The temperature is -2°C.", (T,)),
]
# Millions and powers.
LARGE = [
    ("1000000", "The answer is 1 million.", (T,)),
    ("1", "The answer is 1 million.", (F, N)),
    ("2500000", "The answer is 2.5 million dollars.", (T,)),
    ("5000", "#### 5k", (T, N)),
    ("5000", "The answer is 5 thousand", (T,)),
    ("5", "The answer is 5 thousand", (F, N)),
    ("1500000", "1.5 million", (T,)),
    ("1200000", "The answer is 1 million 200 thousand", (T, N)),
    ("1", "The answer is 1 million 200 thousand", (F, N)),
    ("1000", "The answer is 10^3", (T,)),
    ("10", "The answer is 10^3", (F,)),
    ("3", "The answer is 10^3", (F,)),
    ("1000", "\\boxed{10^3}", (T,)),
    ("1000", "10³", (T,)),
    ("1024", "#### 2^{10}", (T,)),
    ("3000", "The answer is 3e3", (T,)),
    ("3", "The answer is 3e3", (F,)),
    ("3000", "3 \\times 10^{3}", (T,)),
    ("3", "The answer is 3 x 10^3", (F,)),
    ("0.001", "10^{-3}", (T,)),
]
# Marks of thousands and decimals in different countries.
GROUPED = [
    ("1234.56", "The answer is 1.234,56", (T, N)),
    ("1234", "The answer is 1.234", (T, N)),
    ("1.234", "The answer is 1.234", (T,)),
    ("1", "The answer is 1.234", (F,)),
    ("1234567", "The answer is 12,34,567", (T,)),
    ("1234567", "₹12,34,567", (T,)),
    ("1234567", "1.234.567", (T,)),
    ("1234567", "1 234 567", (T,)),
    ("1234", "1'234", (T, N)),
    ("1234", "1 234", (T, N)),
    ("234", "1 234", (F, N)),
    ("1", "The answer is 1,5", (F, N)),
    ("5", "The answer is 1,5", (F, N)),
    ("1.5", "The answer is 1,5", (T, N)),
    ("1234", "1{,}234", (T,)),
    ("1234", "1\\,234", (T,)),
    ("1234", "1,234.00", (T,)),
    ("1234", "$1,234.", (T,)),
    ("1234.5", "1,234.5", (T,)),
    ("1000", "1.000", (T, N)),
    ("1", "1.000", (T,)),
]
# Fractions.
FRACTIONS = [
    ("0.5", "½", (T,)),
    ("2.5", "The answer is 2 1/2", (T,)),
    ("2.5", "2½ hours", (T,)),
    ("0.75", "\\boxed{\\frac34}", (T,)),
    ("0.75", "3/4", (T,)),
    ("1.5", "1\\frac{1}{2}", (T,)),
    ("3", "The answer is 3/4", (F,)),
    ("4", "The answer is 3/4", (F,)),
    ("3", "\\frac{9}{3}", (T,)),
]
# Percent, currencies and units.
UNITS = [
    ("50", "50%", (T,)),
    ("0.5", "50%", (T, N)),
    ("50", "50 percent", (T,)),
    ("1200", "Rs.1200", (T,)),
    ("1200", "Rs 1,200", (T,)),
    ("1200", "1200€", (T,)),
    ("1200", "USD 1,200", (T,)),
    ("18", "18$", (T,)),
    ("18.5", "$18.50", (T,)),
    ("18.5", "The answer is 18 dollars and 50 cents.", (T, N)),
    ("18", "The answer is 18 dollars and 50 cents.", (F, N)),
    ("2.5", "The answer is 2 hours and 30 minutes.", (T, N)),
    ("2", "The answer is 2 hours and 30 minutes.", (F, N)),
    ("24", "The answer is 2 dozen.", (T, N)),
    ("2", "The answer is 2 dozen.", (T, N)),
    ("5", "The answer is 5 m^2.", (T,)),
    ("2", "The answer is 5 m^2.", (F,)),
    ("5", "5 cm^3", (T,)),
    ("3", "5 cm^3", (F,)),
]
# Ranges, alternatives, sums and roundings.
SEVERAL = [
    ("5", "The answer is 5 or 6.", (N,)),
    ("6", "The answer is 5 or 6.", (N, F)),
    ("5", "The answer is 5-6 apples.", (N,)),
    ("5", "The answer is between 5 and 6.", (N,)),
    ("5", "The answer is 5 and 6.", (N,)),
    ("5", "The answer is 3 + 2", (T, N)),
    ("3", "The answer is 3 + 2", (F, N)),
    ("5", "The answer is 3 + 2 = 5", (T,)),
    ("3", "The answer is 3 x 4", (F, N)),
    ("9", "The answer is 9:30", (N, F)),
    ("30", "The answer is 9:30", (N, F)),
    ("16", "The answer is \\sqrt{16}", (N, F)),
    ("4", "The answer is \\sqrt{16}", (N, T)),
    ("5", "The answer is \\binom{5}{2}", (N, F)),
    ("4", "The answer is 3.999, which rounds to 4.", (T,)),
    ("4", "The answer is approximately 3.999 ≈ 4", (T, N)),
    ("3.999", "The answer is approximately 3.999 ≈ 4", (T, N)),
    ("3.14", "The answer is 3.14159, rounded to 2 decimal places", (F, N)),
    ("2", "The answer is 3.14159, rounded to 2 decimal places", (F,)),
]
# Numbers in words.
WORDS = [
    ("12", "The answer is twelve.", (T, N)),
    ("12", "twelve", (T, N)),
    ("21", "The answer is twenty-one apples", (T, N)),
    ("105", "The answer is one hundred and five.", (T, N)),
    ("1200", "#### one thousand two hundred", (T, N)),
    ("12", "The answer is twelve for 3 people", (T, N)),
    ("3", "The answer is twelve for 3 people", (F, N)),
    ("1", "The answer is one of the options: 5", (F, N)),
    ("5", "The answer is one of the options: 5", (T, N)),
    ("13", "The answer is twelve.", (F, N)),
]
# Other languages and scripts.
ABROAD = [
    ("42", "答案是42。共3步", (T, N)),
    ("3", "答案是42。共3步", (F, N)),
    ("42", "答案：42", (T, N)),
    ("42", "La respuesta es 42. Gracias por 2 minutos.", (T, N)),
    ("42", "La réponse est 42. Merci pour 2 minutes.", (T, N)),
    ("42", "Ответ: 42. Спасибо 2 раза.", (T, N)),
    ("42", "答えは42です。3ステップ", (T, N)),
    ("42", "정답은 42입니다. 3 단계", (T, N)),
    ("42", "٤٢", (T, N)),
    ("42", "４２", (T, N)),
    ("42", "The answer is ٤٢. It took 3 steps.", (T, N)),
    ("3", "The answer is ٤٢. It took 3 steps.", (F, N)),
]
# Where the answer stands.
PLACES = [
    ("60", "She is 60 years old in 2030.", (T, N)),
    ("2030", "She is 60 years old in 2030.", (F, N)),
    ("16", "**Answer:**\n\n16 apples for 4 people", (T,)),
    ("16", "### Final Answer\n\n16 apples for 4 people", (T,)),
    ("16", "## Answer\n**16** apples for 4 people", (T,)),
    ("16", "The final answer is:\n\n$16$ for 4", (T,)),
    ("6", "#### 1. Find total\n2+4=6\n#### 2. Conclude\nThe total is 6.", (T,)),
    ("2", "#### 1. Find total\n2+4=6\n#### 2. Conclude\nThe total is 6.", (F, N)),
    ("6", "#### Step 1: 2 apples\n#### Step 2: 4\nThe answer is 6", (T,)),
    ("18", "#### 18. Done", (T,)),
    ("18", "The answer is 18. There are 5. The answer is correct.", (T,)),
    ("6", "12 apples and 6 pears", (T, N)),
    ("12", "12 apples and 6 pears", (F, N)),
    ("18", "She makes 18 dollars a day. This took 3 steps.", (F,)),
    ("18", "The answer is 18\nThe answer is 18", (T,)),
    ("0", "The answer is 0", (T,)),
    ("0", "zero", (T, N)),
    ("5", "no idea", (F,)),
    ("5", "", (F,)),
    ("5", "I do not know", (F,)),
]
# Thinking, and the rest.
THINKING = [
    ("3", "<think>12</think>3", (T,)),
    ("12", "<think>The answer is 12. Let me check", (N,)),
    ("12", "The answer is 5 <think> 12", (N,)),
    ("3", "The answer is 12.</think>The answer is 3.", (T,)),
    ("5", "x = 5, y = 3", (F, N)),
    ("3", "Answer: 3 (three)", (T,)),
    ("3", "Answer: three (3)", (T, N)),
    ("10", "The answer is 10.0", (T,)),
    ("10", "The answer is 10.", (T,)),
    ("10", "The answer is: $\\boxed{10}$.", (T,)),
    ("10", "The answer is \\(10\\)", (T,)),
    ("10", "The answer is \\[10\\]", (T,)),
    ("10", "Answer = 10", (T,)),
    ("10", "**10**", (T,)),
    ("10", "`10`", (T,)),
    ("10", "(10)", (T,)),
    ("10", "10!", (T, N)),
    ("10", "=10", (T,)),
    ("10", "~10", (T, N)),
    ("10", "about 10", (T,)),
    ("10", ">10", (T, N, F)),
    ("1", "<answer>1</answer>", (T,)),
    ("1200", "1,200 apples", (T,)),
    ("1200", "1200.", (T,)),
    ("3.5", "3.5.", (T,)),
]
# What is said beside the answer.
ASIDES = [
    ("15", "5 × 3 = 15, so 15 apples in 3 baskets.", (T, N)),
    ("5", "The answer is 50% of 10, which is 5.", (T, N)),
    ("50", "The answer is 50% of 10, which is 5.", (F, N)),
    ("18", "The answer is 18, which is 2 times 9", (T,)),
    ("0.75", "The answer is three-fourths.", (T, N)),
    ("0.5", "The answer is half.", (T, N)),
    ("5", "The answer is more than 5.", (N, F)),
    ("5", "She needs at least 5.", (T, N)),
    ("20", "The answer is 25? No, 20.", (T, N)),
    ("25", "The answer is 25? No, 20.", (F, N)),
    ("18", "The answer is 18.\n\nNote: if we count differently, the answer would be 20.", (T,)),
    ("20", "The answer is 18.\n\nNote: if we count differently, the answer would be 20.", (F,)),
    ("18", '{"answer": 18, "confidence": 0.9}', (T,)),
    ("18", "<answer>18</answer>\n\nIt took 3 steps.", (T,)),
    ("18", "The answer to the question is 18. It took 3 days.", (T,)),
    ("18", "The final total is 18. It took 3 days.", (T,)),
    ("18", "Therefore, Tom has 18 apples. He ate 3 of 21.", (T, N)),
    ("12", "The answer is 12 of the 20 students.", (T,)),
    ("18", "The answer is $18 for the 3 of them.", (T,)),
    ("18", "**Final Answer**\n\nThe total is 18 for 3.", (T, N)),
    ("18", "Answer: 18\n\nConfidence: 90%", (T,)),
    ("5", "The answer is 5pm", (T, N)),
    ("6", "Ans: 6", (T,)),
    ("6", "The answer is six (6).", (T, N)),
    ("7", "The answer is 7 (seven).", (T,)),
    ("1", "The answer is 1st.", (T, N)),
    ("5", "The answer is 5-year.", (T, N)),
    ("5", "The answer is x = 5 or x = -5", (N, F)),
    ("1200", "The answer is $1,200.00.", (T,)),
    ("2", "The answer is 2,000.", (F,)),
    ("2000", "The answer is 2,000", (T,)),
    ("2000", "The answer is 2 000", (T, N)),
    ("2", "The answer is 2.0", (T,)),
    ("30", "The answer is 30 minutes (0.5 hours).", (T,)),
    ("0.5", "The answer is 30 minutes (0.5 hours).", (F, N)),
    ("18", "The answer is 18\n\n#### 18", (T,)),
    ("18", "#### 18\n\nThe answer is 19.", (T, N)),
    ("3", "The answer is 1,2,3", (F, N)),
    ("18", "So the answer is 18. So 18 it is. That took me 2 minutes.", (T,)),
    ("5", "The answer is 5!", (T, N)),
    ("-5", "The answer is (5)", (F,)),
    ("5", "The answer is 05", (T,)),
    ("1", "The answer is 100%", (F, N)),
    ("100", "The answer is 100%", (T,)),
    ("25", "The answer is not 20 or 30 but 25.", (T,)),
    ("20", "The answer is not 20 or 30 but 25.", (F,)),
    ("30", "The answer is not 20 or 30 but 25.", (F, N)),
    ("5", "Answer: 5 Answer: 6", (F,)),
    ("6", "Answer: 5 Answer: 6", (T,)),
    ("18", "The answer is 18 because 3 of 6 are 9 each", (T,)),
    ("9", "The answer is 3 times 3, i.e. 9", (T, N)),
    ("3", "The answer is 3 times 3, i.e. 9", (F, N)),
    ("1e3", "1000", (T,)),
    ("0.1", "The answer is 10%", (N,)),
    ("10", "The answer is ten percent", (T, N)),
    ("12", "There are a dozen.", (T, N)),
    ("0", "The answer is none.", (T, N, F)),
    ("1000000", "one million", (T, N)),
]
EVERY = [
    *RUN_ON,
    *CORRECTED,
    *SIGNS,
    *LARGE,
    *GROUPED,
    *FRACTIONS,
    *UNITS,
    *SEVERAL,
    *WORDS,
    *ABROAD,
    *PLACES,
    *THINKING,
    *ASIDES,
]


@pytest.mark.parametrize("row", cases("numbers.jsonl", "answer"))
def test_the_rows_beside_the_repository_are_graded_right(row: dict) -> None:
    same = same_number(row["gold"], row["answer"])
    assert same is row["right"] or (same is None and row.get("or_ungraded"))


@pytest.mark.parametrize(("gold", "answer", "grades"), EVERY)
def test_an_answer_is_graded_as_a_careful_reader_would(
    gold: str, answer: str, grades: tuple[bool | None, ...]
) -> None:
    assert same_number(gold, answer) in grades


def test_of_what_can_be_told_most_is_graded() -> None:
    tellable = [(gold, answer) for gold, answer, grades in EVERY if T in grades]
    graded = [row for row in tellable if same_number(*row) is True]
    assert len(graded) > 0.8 * len(tellable)


def test_an_answer_that_cannot_be_told_has_no_grade() -> None:
    item = Item("x", (), answer="5")
    assert GSM8K.grade(item, "The answer is 5 or 6.") == {}
    assert GSM8K.grade(item, "The answer is 5. Wait, that is wrong.") == {}
    assert GSM8K.grade(item, "<think>The answer is 5.") == {}
    assert GSM8K.grade(item, "I do not know") == {"accuracy": 0.0}
    assert GSM8K.grade(item, "The answer is 6.") == {"accuracy": 0.0}


FORMS = [
    "So the answer is $\\boxed{{{}}}$.",
    "Of 17 that makes \\boxed{{{}}} for 4 of them.",
    "The answer is ${}$.",
    "The final answer is {}. I hope it is correct.",
    "3 + 4 = 7, so {} are left.",
]


@needs_raw_data
def test_the_grader_agrees_with_math_verify_wherever_both_tell() -> None:
    golds = [
        line.rpartition("####")[2].strip(' \n"}\\')
        for line in (RAW / "gsm8k" / "raw" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    ][::20]
    assert len(golds) > 60
    for gold in golds:
        for said in (gold, f"{gold}1", f"-{gold}", f"{number_of(gold)}.0", f"{number_of(gold)}/1"):
            for form in FORMS:
                ours, theirs = same_number(gold, form.format(said)), same_mathematics(gold, form.format(said))
                assert ours is theirs or ours is None, (gold, form.format(said))
