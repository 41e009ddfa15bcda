"""Rubrics for judges, from 0 to 10 and zero-shot, and the parsing of grades.

The criteria of each rubric are the paper's (section 4.1). The prompts for the three aspects of a medical answer are quoted from C.5
("Experiment Details", arXiv 2506.04721); the other prompts are ours.
"""

from dataclasses import dataclass

from sparta.arena.votes import HIGHEST, parse_score
from sparta.chat.judge_prompts import GRADING, PAPERS_GRADING


@dataclass(frozen=True)
class Rubric:
    """How a judge grades a metric, from 0 to 10, zero-shot.

    introduction: the beginning of its prompt: what to judge, and by which criteria. reference: whether the judge sees the item's
    reference. instruction: the end of the prompt.
    """

    introduction: str
    reference: bool = True
    instruction: str = GRADING

    def identity(self) -> dict[str, str | bool]:
        """Everything that a grade depends on, as plain values; the default instruction is left out."""
        own = {} if self.instruction == GRADING else {"instruction": self.instruction}
        return {"introduction": self.introduction, "reference": self.reference, **own}


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
    "Rate the clinical informativeness of the following medical response on a scale of 0 to 10 (10 being most informative). "
    "Consider the medical information intensity.",
    reference=False,
    instruction=PAPERS_GRADING,
)

MEDQA_COHERENCE = Rubric(
    "Rate the logical coherence of the following medical response on a scale of 0 to 10 (10 being most logical). "
    "When evaluating, consider the following aspects:\n"
    "- Structure: Is the response well-organized and easy to follow?\n"
    "- Flow: Are the ideas presented in a logical sequence, with clear connections between points?\n"
    "- Reasoning: Is the reasoning sound and aligned with medical principles?",
    reference=False,
    instruction=PAPERS_GRADING,
)

MEDQA_COMPREHENSIVENESS = Rubric(
    "Rate the comprehensiveness of the following medical response on a scale of 0 to 10 (10 being the most comprehensive). "
    "When evaluating, consider the following aspects:\n"
    "- Completeness: Does the response address all relevant aspects of the medical query?\n"
    "- Detail: Are the explanations sufficiently detailed to convey a clear understanding of the concepts involved?\n"
    "- Coverage: Does the response encompass the full scope of the question, including differential diagnoses, treatment options, and "
    "underlying mechanisms where appropriate?",
    reference=False,
    instruction=PAPERS_GRADING,
)


def parse_grade(text: str, *, cut: bool = False) -> float | None:
    """The grade in 0..10 that a judge's `text` gives, or None if it is missing; parsed as strictly as a vote (see sparta.arena.votes).

    cut: the text was cut at its token limit.
    """
    return parse_score(text, cut=cut, lowest=LOWEST_GRADE, highest=HIGHEST)
