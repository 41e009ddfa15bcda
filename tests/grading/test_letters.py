"""Reading which choice, or which word, an answer decides for."""

import time

import pytest
from support.real_data import RAW, needs_raw_data

from sparta.grading.letters import letter_of, word_of
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.knowledge_crosswords import KCROSS
from sparta.tasks.benchmarks.medqa import MEDQA, SPECIES
from sparta.tasks.dataset import Dataset
from sparta.tasks.raw_files import LocalRaw

LABELS = ("A", "B", "C", "D", "E")
VERDICTS = ("yes", "no", "neutral")

DECIDED = [
    ("A", "A"),
    ("a", "A"),
    ("B", "B"),
    ("B.", "B"),
    ("(B)", "B"),
    ("**B**", "B"),
    ("B) text", "B"),
    ("[B]", "B"),
    ("b", "B"),
    ("b.", "B"),
    ("b) text", "B"),
    ("(b) text", "B"),
    (" B\n", "B"),
    ("B: text", "B"),
    ("B - text", "B"),
    ("B, since it is so", "B"),
    ("B because A is wrong", "B"),
    ("B. Aspirin", "B"),
    ("**B. Aspirin**", "B"),
    ("**B**. Aspirin", "B"),
    ("**B** Aspirin", "B"),
    ("B.Aspirin", "B"),
    ("B. aspirin\n\nAspirin is good.", "B"),
    ("Option B", "B"),
    ("Option B: aspirin", "B"),
    ("option b", "B"),
    ("Choice (B)", "B"),
    ("Answer: B", "B"),
    ("answer: b", "B"),
    ("Answer: (B)", "B"),
    ("Answer: **B**", "B"),
    ("**Answer:** B", "B"),
    ("**Answer: B**", "B"),
    ("**Answer**: B. Aspirin", "B"),
    ("Answer:\nB", "B"),
    ("Answer:\n\nB. Aspirin", "B"),
    ("Answer - ignored\nAnswer: B", "B"),
    ("Answer B", "B"),
    ("The correct answer is (B) because A is wrong and C too.", "B"),
    ("The answer is B", "B"),
    ("the answer is b.", "B"),
    ("The answer is: B. Aspirin", "B"),
    ("The answer is option B.", "B"),
    ('The answer is "B".', "B"),
    ("The best option is B, not C.", "B"),
    ("The answer is D, not A", "D"),
    ("The answer is D not A.", "D"),
    ("The answer is not A but C.", "C"),
    ("The answer is not (A), but (C).", "C"),
    ("Answer: A ... wait, the answer is C", "C"),
    ("Answer: A. No: Answer: B", "B"),
    ("First I thought the answer is A. Then I saw it: the answer is B.", "B"),
    ("\\boxed{C}", "C"),
    ("$\\boxed{\\text{C}}$", "C"),
    ("\\boxed{(C)}", "C"),
    ("So it is \\boxed{\\textbf{(C)}}.", "C"),
    ("\\boxed{c}", "C"),
    ("\\boxed{C. Aspirin}", "C"),
    ("<answer>D</answer>", "D"),
    ('{"answer": "D"}', "D"),
    ("{'answer': 'D'}", "D"),
    ("I would choose B.", "B"),
    ("I choose option (B)", "B"),
    ("I'd go with B because it is best", "B"),
    ("I pick D", "D"),
    ("I select B as the answer", "B"),
    ("Therefore, B.", "B"),
    ("Thus the answer is B.", "B"),
    ("So it's B.", "B"),
    ("It is A.", "A"),
    ("Hence (B)", "B"),
    ("B is correct.", "B"),
    ("B is the correct answer.", "B"),
    ("Option B is the best choice.", "B"),
    ("(B) is right", "B"),
    ("A is wrong and B is correct.", "B"),
    ("A is the correct answer, as the patient has gout.", "A"),
    ("C is the most appropriate next step.", "C"),
    ("The patient has gout (B).", "B"),
    ("I think option B.", "B"),
    ("Not (A); rather aspirin (B)", "B"),
    ("Aspirin helps.\n\nB", "B"),
    ("Let us see. A patient with gout.\n\n**B**", "B"),
    ("### B", "B"),
    ("A patient with gout needs B cells. Answer: E", "E"),
    ("The answer is A because of gout", "A"),
    ("The answer is A and it is clear", "A"),
    ("The answer is B and C is wrong", "B"),
    ("The answer is (A) a patient", "A"),
    ("My final answer is E!", "E"),
    ("The correct choice is: D", "D"),
    ("Final Answer: The final answer is $\\boxed{B}$. I hope it is correct.", "B"),
    ("A) text\n\nB is wrong because of gout", "A"),
    ("A. Aspirin. It is an analgesic; B, C and D are not.", "A"),
    ("Answer: B. Aspirin\nA. is wrong", "B"),
    ("Answer: B\n\nExplanation: So A, C and D are wrong.", "B"),
    ("The answer is B. So (A) is wrong.", "B"),
    ("Answer: C. Clostridium difficile", "C"),
    ("The answer is C, C. difficile", "C"),
    ("A. x\nB. y\nC. z\nAnswer: C", "C"),
    ("The answer would be B.", "B"),
    ("The answer is definitely B.", "B"),
    ("The answer is most likely (B) gout", "B"),
    ("The answer to this question is B.", "B"),
    ("Answer = B", "B"),
    ("If we look closely, the answer is B.", "B"),
    ("The answer is B, which is aspirin", "B"),
    # A review of the others, below what is decided.
    ("C. Aspirin\n\nIt fits.\n\nA. Ice\nB. Rest\nD. Heat", "C"),
    ("C. Aspirin\n\nIt fits.\n\n- **A. Ice**\n- **B. Rest**", "C"),
    ("A. Aspirin\n\nIt fits.\n\nB. Rest\nC. Ice\nD. Heat", "A"),
    ("The correct answer is C. Aspirin.\n\nA. Ice\nB. Rest", "C"),
    # What the cue's noun is described by, and what is asked for in its stead.
    ("The correct choice that satisfies all the given constraints is:\n\n**C. Aspirin**", "C"),
    ("the choice that satisfies all constraints is **B**", "B"),
    ("the only option that fits the graph is **B**", "B"),
    ("The best answer among the options is B", "B"),
    ("the correct answer from the given options is B", "B"),
    ("Option A: fails.\nThus, option C satisfies all constraints", "C"),
    ("The most appropriate treatment is **E. Aspirin**", "E"),
    ("The most likely diagnosis is B. Gout", "B"),
    # The letter that ends a name is no choice that is called right.
    ("D. Give the vaccine.\n\nHepatitis B is the most likely cause.", "D"),
    ("E\n\nVitamin D is the best choice for her bones.", "E"),
    ("D. Amphotericin B\n\nAmphotericin B is the most likely choice.", "D"),
    ("I think B is correct.", "B"),
    ("The correct answer is A.\nB. C. and D. are wrong.", "A"),
]

UNDECIDED = [
    "",
    "   ",
    "A patient with gout",
    "no idea",
    "Aspirin",
    "A or B",
    "A and B",
    "A, B",
    "A, B and C",
    "B/C",
    "Both A and B",
    "The answer is A or B.",
    "The answer is both A and B",
    "The answer is either (A) or (B)",
    "The answer is not A.",
    "The answer isn't A.",
    "The answer cannot be A",
    "It could be A",
    "B cells are made in marrow",
    "The answer is B cells",
    "The answer is vitamin B",
    "The answer is hepatitis B",
    "The answer is a patient",
    "The answer is A patient with gout",
    "It is a case of gout",
    "If the answer is A, then",
    "A wrong answer is A.",
    "The incorrect answer is: B",
    "A. x\nB. y\nC. z\nD. w",
    "A) x\nB) y",
    "Answer:\nA. x\nB. y\nC. z",
    "Option A is wrong.",
    "(A) is wrong.",
    "Not (A).",
    "Neither A nor B is correct.",
    "Neither (A) nor (B)",
    "A and B is correct",
    "A or B is correct",
    "If B is correct",
    "B\nC",
    "I",
    "I think so",
    "I, for one, do not know",
    "Z",
    "F",
    "The answer is F",
    "Answer: F",
    "answer",
    "Answer:",
    "\\boxed{12}",
    "\\boxed{}",
    "D-dimer",
    "The answer is D-dimer",
    "A+",
    "A1c",
    "BCD",
    "ABCDE",
    "e.g. aspirin",
    "The answer is e.g. aspirin",
    "Give B12",
    "vitamin (B) or (C)",
    "(A) x (B) y (C) z",
    "Options A, B and C differ",
    "Dr. B. Smith said so",
    "A given patient",
    "A based approach",
    "A's",
    "The answer is unclear between B and C.",
    "I don't choose A",
    "I would not choose B",
    "A is wrong. B is wrong.",
    "Do I choose A or B?",
    "Is A correct?",
    "We see a B, a C and a D",
    "Vitamin C is the answer.",
    "Hemophilia A is the most likely diagnosis",
    "The most likely cause is hepatitis B.",
    "I don't think B is correct.",
    "It is not true that B is correct.",
    "D would be the answer if the patient were an adult.",
    "The option that violates a constraint is B.",
    "Option A satisfies all constraints except the third.",
    "A. Foo or B. Bar",
    "A) foo B) bar",
    "(A) foo (B) bar",
    "A. B.",
    "(A) (B)",
    "**A** **B**",
    "A (or B)",
    "A, possibly B",
    "Answer: A. x; B. y",
    "Answer: A. x\nB. y",
    "The correct answer is A. Disclose and B. Tell.",
    "The correct answer is A. foo. or B. bar",
    "The answer is A as well as B",
    "The answer is A or B depending.",
    "\\boxed{A} and \\boxed{B}",
    "A. x\n\nB. y\n\nC. z",
    "- A. x\n- B. y",
    "A. x\n- fits\n\nB. y\n- fits\n\nC. z\n- fits",
    "There is no option A.",
    "I would avoid option A.",
    "So, A and B are out.",
    "Thus, A, which violates constraint 2, is out.",
    "Thus, A (incorrect)",
    "Thus, A: not correct.",
]

WORDS = [
    ("Yes", "yes"),
    ("No, it is rude.", "no"),
    ("no", "no"),
    ("'Neutral'", "neutral"),
    ("**No**", "no"),
    ("The answer is No.", "no"),
    ("Neutral. It depends.", "neutral"),
    ("Yes, it is. No rule is broken.", "yes"),
    ("No, because yes means consent", "no"),
    ("Is it fine? Yes.", "yes"),
    ("Choose from: 'Yes', 'No', 'Neutral'\nAnswer: No", "no"),
    ("I'd say it is neutral in this context", "neutral"),
    ("It depends, so my answer is neutral", "neutral"),
    ("The action is considered neutral.", "neutral"),
    ("Yes it is acceptable", "yes"),
    ("\\boxed{Yes}", "yes"),
    ("It is not acceptable. Verdict: no", "no"),
    ("This is rude.\n\nNo", "no"),
    ("Yes, at first sight. But the answer is no.", "no"),
    ("There is no rule against it, so yes.", "yes"),
    ("not acceptable", None),
    ("acceptable", None),
    ("No one would object", None),
    ("Yes and no.", None),
    ("yes or no", None),
    ("Yes/No", None),
    ("There is no rule against it.", None),
    ("It is not neutral.", None),
    ("", None),
    ("nobody knows", None),
    ("I know", None),
    ("'Yes', 'No', 'Neutral'", None),
    ("The answer is yes or no", None),
    ("Norway is neutral ground", None),
    ("He said yes, she said no.", None),
    ("No rule is broken", None),
    ("It is neither neutral nor rude", None),
    ("There is no violation. **Yes**", "yes"),
    ("So no etiquette rule was broken. Yes.", "yes"),
    ("No. Yes.", None),
    ("No (neutral)", None),
]


@pytest.mark.parametrize(("text", "letter"), DECIDED)
def test_a_decision_is_read(text: str, letter: str) -> None:
    assert letter_of(text, LABELS) == letter


@pytest.mark.parametrize("text", UNDECIDED)
def test_what_decides_for_none_or_several_is_no_letter(text: str) -> None:
    assert letter_of(text, LABELS) is None


@pytest.mark.parametrize(
    "text",
    [
        "The answer is C. difficile",
        "C. difficile is the cause",
        "E. coli",
        "The answer is E. coli",
        "Answer: E. coli",
        "The answer is C diff.",
    ],
)
def test_a_name_that_begins_with_a_letter_is_no_choice_where_a_data_set_knows_it(text: str) -> None:
    letter = "E" if "coli" in text else "C"
    assert letter_of(text, LABELS, SPECIES) is None
    assert MEDQA.grade(Item("x", (), choices=dict.fromkeys(LABELS, "it"), answer=letter), text) != {
        "accuracy": 1.0
    }
    assert letter_of(f"The answer is B.\n\n{text}", LABELS, SPECIES) == "B"


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}.",
        "({})",
        "**{}**",
        "{}) text",
        "Answer: {}",
        "The answer is {}, because",
        "\\boxed{{{}}}",
        "{} is correct.",
    ],
)
@pytest.mark.parametrize("letter", LABELS)
def test_every_letter_is_read_alike(form: str, letter: str) -> None:
    assert letter_of(form.format(letter), LABELS) == letter


def test_a_letter_that_is_no_label_is_none() -> None:
    assert letter_of("The answer is E.", LABELS[:4]) is None
    assert letter_of("The answer is E.", LABELS) == "E"


def test_the_word_i_is_a_letter_only_where_it_stands_for_a_choice() -> None:
    labels = "ABCDEFGHI"
    assert letter_of("The answer is I.", labels) == "I"
    assert letter_of("(I)", labels) == "I"
    assert letter_of("I, for one, do not know", labels) is None
    assert letter_of("I think it may rain", labels) is None


@pytest.mark.parametrize(("text", "word"), WORDS)
def test_a_verdict_is_read_in_words(text: str, word: str | None) -> None:
    assert word_of(text, VERDICTS) == word


def test_a_word_comes_back_as_it_is_spelled_among_the_choices() -> None:
    assert word_of("answer: NO", ("Yes", "No", "Neutral")) == "No"


@pytest.mark.parametrize(
    "unit",
    [
        "A ",
        "A\n",
        "(A) ",
        "Answer: ",
        "Answer: A. ",
        "answer is ",
        "B or ",
        "not A but ",
        "*",
        " ",
        "yes, ",
        "\\boxed{",
    ],
)
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    start = time.process_time()
    letter_of(unit * (100_000 // len(unit)), LABELS)
    word_of(unit * (100_000 // len(unit)), VERDICTS)
    assert time.process_time() - start < 20  # quadratic time would be minutes


def _review(item: Item, form: str) -> str:
    """The other choices, a line each."""
    return "\n".join(
        form.format(label, choice) for label, choice in item.choices.items() if label != item.answer
    )


def _forms(item: Item) -> tuple[str, ...]:
    """Answers of the forms that models write, which are for the item's right choice."""
    right, text = item.answer, item.choices[item.answer or ""]
    return (
        f" {right}\n\nExplanation: it fits.\n\n{_review(item, '{}. {}')}",
        f" {right}. {text}\n\nExplanation: it fits.\n\n{_review(item, '{}. {}: this does not fit.')}",
        f" {right}. {text}\n\nExplanation: it fits.\n\n{_review(item, '- {}. {}')}",
        f"**{right}. {text}**\n\nExplanation: it fits.\n\n{_review(item, '- **{}. {}**: no.')}",
        f"{right}. {text}\n\n{text} is the most likely choice.",
        f"{right}. {text}\n\n{item.messages[0].content}",
        f"The correct answer is {right}. {text}\n\n{_review(item, '{}. {}')}",
        f"We check.\n\nThe correct choice that satisfies all the given constraints is:\n\n**{right}. {text}**",
        f"The most appropriate next step is **{right}. {text}**.",
        "\n".join(f"Option {label}: {choice}\n- checked" for label, choice in item.choices.items())
        + f"\n\nThus, option {right} satisfies all the constraints.",
    )


def _undecided(item: Item) -> tuple[str, ...]:
    """Answers that are for none of the choices, or for several."""
    (first, one), (second, two), *_ = item.choices.items()
    return (
        "\n".join(f"{label}. {choice}" for label, choice in item.choices.items()),
        "\n\n".join(f"{label}. {choice}\n- checked" for label, choice in item.choices.items()),
        f"The correct answer is {first}. {one} and {second}. {two}",
        f"{first}. {one} or {second}. {two}",
    )


@needs_raw_data
@pytest.mark.parametrize("dataset", [MEDQA, KCROSS], ids=lambda dataset: dataset.name)
def test_real_choices_are_read_in_whatever_form_models_write_them(dataset: Dataset) -> None:
    splits = dataset.local.read(LocalRaw(dataset.local, RAW).rows)
    sample = [*(splits.validation or ()), *(splits.test or ())][::4]
    assert len(sample) >= 100
    for item in sample:
        labels = tuple(item.choices)
        assert [letter_of(text, labels) for text in _forms(item)] == [item.answer] * len(_forms(item))
        assert [letter_of(text, labels) for text in _undecided(item)] == [None] * len(_undecided(item))
