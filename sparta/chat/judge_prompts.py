"""What a judge is asked: the instruction, the delimited question and response, and the schema of its vote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sparta.chat.sanitize import JUDGING_DELIMITERS
from sparta.chat.template import Message

JudgingMode = Literal["text", "expected"]

INTRODUCTION = "Judge how well the response answers the question."
TEXT = 'Give the response a score from 1 (worst) to 10 (best). Reply with JSON only: {"score": n}'
TEXT_AFTER_WORKING = (
    "First work out your own answer on one line. "
    'On the next line give the response a score from 1 (worst) to 10 (best) as JSON: {"score": n}'
)
EXPECTED = (
    "Give the response a score from {worst} (worst) to {best} (best). Reply with that one character only."
)
EXPECTED_AFTER_WORKING = (
    "First work out your own answer on one line. "
    "On the next line give the response a score from {worst} (worst) to {best} (best): "
    "that one character only."
)
GRADING = 'Give the response a score from 0 (worst) to 10 (best). Reply with JSON only: {"score": n}'
PAPERS_GRADING = "Please output in the format: {'score': score}"
"""How the paper's prompts for MedQA end (C.5)."""
GRADINGS = (GRADING, PAPERS_GRADING)

COMPARING = 'Reply with JSON only: {"better": 1} or {"better": 2}'
"""How a prompt ends that asks which of two judgements is the better one."""
COMPARING_PATTERN = r'\{"better": ?[12]\}'

WORKING_PATTERN = r"[^\n]+\n"
"""A regular expression for the line that a judge writes before its score."""
_SCORE_PATTERN = r'\{"score": ?(?:10|[1-9])\}'
_GRADE_PATTERN = r"\{%(quote)sscore%(quote)s: ?(?:10|[0-9])\}"


def judging_instruction(mode: JudgingMode, working: bool, labels: Sequence[str]) -> str:
    """The closing instruction of a judge prompt; `labels` (worst first) matter for `expected` alone."""
    if mode == "text":
        return TEXT_AFTER_WORKING if working else TEXT
    return (EXPECTED_AFTER_WORKING if working else EXPECTED).format(worst=labels[0], best=labels[-1])


def judging_pattern(working: bool) -> str:
    """A regular expression for what `text` asks a judge to write."""
    return (WORKING_PATTERN if working else "") + _SCORE_PATTERN


def grading_pattern(instruction: str) -> str:
    """A regular expression for what `instruction`, one of GRADINGS, asks a judge to write."""
    return _GRADE_PATTERN % {"quote": "'" if instruction == PAPERS_GRADING else '"'}


def question_text(messages: Sequence[Message]) -> str:
    """The question as a judge reads it: the one user turn alone, or all turns with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def judge_content(question: str, response: str, instruction: str) -> str:
    """The text of a judge prompt: introduction, question, response, instruction, in that order.

    What all prompts share comes first, what one judge's two votes on a combat share comes next: prefix caches
    work from the left.
    """
    return JudgingCase(INTRODUCTION, question, None, instruction, JUDGING_DELIMITERS).content(response)


@dataclass(frozen=True)
class JudgingCase:
    """All that a judge is told, except for the response. delimiters: those that no text of the prompt may hold."""

    introduction: str
    question: str
    reference: str | None
    instruction: str
    delimiters: tuple[str, ...]

    def content(self, response: str) -> str:
        reference = () if self.reference is None else (("reference", self.reference),)
        texts = (("question", self.question), *reference, ("response", response))
        blocks = (f"<{name}>\n{text}\n</{name}>" for name, text in texts)
        return "\n".join((self.introduction, *blocks, self.instruction))

    def changed(self, change: Callable[[str], str]) -> "JudgingCase":
        """The same with another question and reference; introduction and instruction are ours."""
        reference = None if self.reference is None else change(self.reference)
        return replace(self, question=change(self.question), reference=reference)
