"""Judge prompts: the instruction, the delimited question and response, and the regular expression of a vote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sparta.chat.sanitize import JUDGING_DELIMITERS
from sparta.chat.template import Message

JudgingMode = Literal["text", "expected"]

INTRODUCTION = "Judge how well the response answers the question."
TEXT = 'Give the response a score from 1 (worst) to 10 (best). Reply with JSON only: {"score": n}'
TEXT_AFTER_REASONING = (
    "First work out your own answer on one line. "
    'On the next line give the response a score from 1 (worst) to 10 (best) as JSON: {"score": n}'
)
EXPECTED = (
    "Give the response a score from {worst} (worst) to {best} (best). Reply with that one character only."
)
EXPECTED_AFTER_REASONING = (
    "First work out your own answer on one line. "
    "On the next line give the response a score from {worst} (worst) to {best} (best): "
    "that one character only."
)
GRADING = 'Give the response a score from 0 (worst) to 10 (best). Reply with JSON only: {"score": n}'
PAPERS_GRADING = "Please output in the format: {'score': score}"
"""The end of the paper's prompts for MedQA (C.5)."""
GRADINGS = (GRADING, PAPERS_GRADING)

SET_INTRODUCTION = (
    "Rate how diverse the following responses to one question are as a set. Consider how they differ in meaning, in style, and in the strategy by "
    "which they answer. Do not rate how good they are."
)
"""Appendix C.8 names the three aspects and the range; the wording is ours."""
SET_GRADING = (
    "Give the set one score from 1 (all say the same in the same way) to 10 (as diverse as possible). "
    'Reply with JSON only: {"score": n}'
)

COMPARING = 'Reply with JSON only: {"better": 1} or {"better": 2}'
"""The end of a prompt that asks which of two judgements is better."""
COMPARING_PATTERN = r'\{"better": ?[12]\}'

REASONING_PATTERN = r"[^\n]+\n"
"""Regular expression of the line of reasoning that a judge writes before its score."""
_SCORE_PATTERN = r'\{"score": ?(?:10|[1-9])\}'
_GRADE_PATTERN = r"\{%(quote)sscore%(quote)s: ?(?:10|[0-9])\}"


def judging_instruction(mode: JudgingMode, reasoning: bool, labels: Sequence[str]) -> str:
    """The closing instruction of a judge prompt. reasoning: ask for a line of reasoning first. labels: worst first; used by `expected` only."""
    if mode == "text":
        return TEXT_AFTER_REASONING if reasoning else TEXT
    return (EXPECTED_AFTER_REASONING if reasoning else EXPECTED).format(worst=labels[0], best=labels[-1])


def judging_pattern(reasoning: bool) -> str:
    """Regular expression of the output requested by judging mode `text`."""
    return (REASONING_PATTERN if reasoning else "") + _SCORE_PATTERN


def grading_pattern(instruction: str) -> str:
    """Regular expression of the output requested by `instruction`, one of GRADINGS."""
    return _GRADE_PATTERN % {"quote": "'" if instruction == PAPERS_GRADING else '"'}


def question_text(messages: Sequence[Message]) -> str:
    """The question as shown to a judge: the content of a single turn, or several turns with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def judge_content(question: str, response: str, instruction: str) -> str:
    """The text of a judge prompt: introduction, question, response, instruction, in that order.

    For prefix caching, the text shared by all prompts comes first, then the text shared by a judge's two votes on a combat.
    """
    return JudgingCase(INTRODUCTION, question, None, instruction, JUDGING_DELIMITERS).content(response)


@dataclass(frozen=True)
class JudgingCase:
    """The parts of a judge prompt without the response. delimiters: tags that no text of the prompt may contain."""

    introduction: str
    question: str
    reference: str | None
    instruction: str
    delimiters: tuple[str, ...]

    def content(self, *responses: str) -> str:
        reference = () if self.reference is None else (("reference", self.reference),)
        texts = (("question", self.question), *reference, *(("response", response) for response in responses))
        blocks = (f"<{name}>\n{text}\n</{name}>" for name, text in texts)
        return "\n".join((self.introduction, *blocks, self.instruction))

    def changed(self, change: Callable[[str], str]) -> "JudgingCase":
        """This case with `change` applied to question and reference; introduction and instruction stay as they are."""
        reference = None if self.reference is None else change(self.reference)
        return replace(self, question=change(self.question), reference=reference)
