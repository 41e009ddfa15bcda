"""What a judge is asked to grade by, on 0 to 10 and zero-shot, and how its grade is read.

What each rubric looks at is the paper's (section 4.1; C.5 and Table 5 for the three sides of a medical answer); the sentences are ours.
"""

from sparta.arena.votes import HIGHEST, parse_score
from sparta.tasks.base import Rubric

LOWEST_GRADE = 0.0

GENERAL = Rubric(
    "Grade how well the response answers the question. The reference is an answer that deserves the best grade; other wording is as good."
)

ALPACA = Rubric(
    "Grade how well the response follows the instruction: whether it does what was asked, is correct, and helps whoever asked. "
    "The reference is one good response, not the only one."
)

COM2 = Rubric(
    "Grade how plausible the response is as an answer to a question about everyday events and their causes and effects. "
    "The reference is an answer that deserves the best grade: the response should say what it says, in whatever words."
)

MEDQA_INFORMATIVENESS = Rubric(
    "Grade how much clinical information the response to a medical question carries: how dense and how precise its medical knowledge is, "
    "whether its terms are exact, and whether the concepts that matter for the question come across.",
    reference=False,
)

MEDQA_COHERENCE = Rubric(
    "Grade how logical the response to a medical question is: whether it is well organised, each idea follows from the one before, "
    "and its clinical reasoning is sound and free of contradictions.",
    reference=False,
)

MEDQA_COMPREHENSIVENESS = Rubric(
    "Grade how complete the response to a medical question is: whether it treats every side of the question in enough detail, "
    "and, where they belong to it, other diagnoses, treatments and underlying mechanisms.",
    reference=False,
)


def parse_grade(text: str, *, cut: bool = False) -> float | None:
    """The grade in 0..10 that a judge's `text` gives, or None where it is missing; read as strictly as a vote (see sparta.arena.votes).

    cut: the text ends where its token limit was.
    """
    return parse_score(text, cut=cut, lowest=LOWEST_GRADE, highest=HIGHEST)
