"""Prompts a judge until its reply can be parsed: for votes (judge.py) and for grades of an evaluation (grade.py)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar

from sparta.chat.renderer import Prompt, PromptTooLong
from sparta.chat.thinking import SplitReply
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request
from sparta.store.records import Row


class Question(Protocol):
    """Something for a judge to score."""

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=Question)
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Pending(Generic[Q]):
    """A question in progress. tries: begun so far.

    before: token ids after the prompt that this try has written and continues from. thinking: their thinking part, as text. working: the
    reasoning before the score, if the judge writes it first; None until it is written. thought: whether thinking is finished or not allowed.
    new_tokens, seconds: totals over all tries.
    """

    question: Q
    prompt: Prompt
    tries: int = 1
    before: tuple[int, ...] = ()
    thinking: str = ""
    working: str | None = None
    thought: bool = False
    new_tokens: int = 0
    seconds: float = 0.0


class Reading(NamedTuple):
    """A parsed reply. score: None if missing. raw: the judge's text without `thinking`. answered: False if its thinking never ended.

    token_ids: of all text of this try, thinking included; empty for labels.
    """

    score: float | None
    raw: str
    thinking: str = ""
    answered: bool = True
    token_ids: tuple[int, ...] = ()


class ReplyFields(TypedDict):
    """The fields that the rows of all judges' replies share; state/README.md documents them (see Vote)."""

    raw: str
    tries: int
    prompt_tokens: int
    new_tokens: int
    seconds: float
    thinking: str
    answered: bool


class VerdictFields(ReplyFields):
    """The same for rows with a score."""

    score: float | None
    cut: int


def reply_fields(pending: Pending[Q], verdict: Reading, prompt_tokens: int) -> ReplyFields:
    """The fields of the row of a finished question. prompt_tokens: of the last try."""
    return {
        "raw": verdict.raw,
        "tries": pending.tries,
        "prompt_tokens": prompt_tokens,
        "new_tokens": pending.new_tokens,
        "seconds": pending.seconds,
        "thinking": verdict.thinking,
        "answered": verdict.answered,
    }


def verdict_fields(pending: Pending[Q], verdict: Reading, prompt_tokens: int) -> VerdictFields:
    """The same for a row with a score."""
    shared = reply_fields(pending, verdict, prompt_tokens)
    return {**shared, "score": verdict.score, "cut": pending.prompt.cut}


class JudgeDialog(ABC, Generic[Q, R]):
    """Turns questions into requests, and completions into rows or follow-up requests. tries: most for each question."""

    def __init__(self, engine: Engine, tries: int) -> None:
        self._engine = engine
        self._tries = tries
        self._pending: dict[str, Pending[Q]] = {}

    def ask_all(self, questions: Iterable[Q], write: Callable[[R], None]) -> None:
        """Ask all `questions`, and write each row as soon as it is ready."""
        inbox = Inbox(self.requests(questions, write))
        for done in self._engine.run(inbox):
            reply = self.on_reply(done)
            if isinstance(reply, Request):
                inbox.put(reply)
            else:
                write(reply)

    def requests(self, questions: Iterable[Q], write: Callable[[R], None]) -> Iterator[Request]:
        """The first request for each question. If a prompt leaves no room, its row, with a missing score, is written instead."""
        for question in questions:
            first = self.ask(question)
            if isinstance(first, Request):
                yield first
            else:
                write(first)

    def ask(self, question: Q) -> Request | R:
        """The first request for `question`, or a row with a missing score if its prompt leaves no room."""
        try:
            prompt = self._prompt(question)
        except PromptTooLong:
            return self._row(Pending(question, Prompt((), None)), Reading(None, ""), 0)
        return self._pose(Pending(question, prompt))

    def on_reply(self, done: Completion) -> Request | R:
        """The row that `done` completes, or a follow-up request: for the score after thinking or reasoning, or for another try."""
        before = self._pending.pop(done.key)
        pending = replace(
            before,
            new_tokens=before.new_tokens + done.new_tokens,
            seconds=before.seconds + done.seconds,
        )
        verdict = self._read(pending, done)
        if isinstance(verdict, Pending):
            return self._pose(verdict)
        again = pending.tries < self._tries and done.finish_reason != "prompt_too_long"
        if verdict.score is None and again:
            fresh = Pending(pending.question, pending.prompt, pending.tries + 1)
            return self._pose(replace(fresh, new_tokens=pending.new_tokens, seconds=pending.seconds))
        return self._row(pending, verdict, done.prompt_tokens)

    def _pose(self, pending: Pending[Q]) -> Request:
        self._pending[pending.question.key] = pending
        return self._request(pending)

    def _thinks(self, pending: Pending[Q]) -> bool:
        """Whether the judge's next text may begin with thinking. Decoding is then unconstrained, since a pattern would prevent thinking."""
        return pending.prompt.invites_thinking and not pending.thought

    def _said(self, pending: Pending[Q], done: Completion) -> SplitReply:
        """The judge's thinking and answer in this try."""
        if pending.thought:
            return SplitReply(pending.thinking, done.text)
        return self._engine.renderer(self._judge(pending.question)).split_reply(pending.prompt, done.text)

    def _reading(
        self, pending: Pending[Q], done: Completion, pattern: str, parse: Callable[[str], float | None]
    ) -> Reading | Pending[Q]:
        """The parsed reply. pattern: a regular expression that constrains the answer; "" for none.

        After thinking, decoding was unconstrained: an answer that does not match is requested again with the pattern, continuing after the
        thinking. An endpoint cannot continue, so its answer is parsed as it is.
        """
        said = self._said(pending, done)
        if not said.ended:
            return Reading(None, "", said.thinking, answered=False)
        if pattern and self._thinks(pending) and done.token_ids and not re.fullmatch(pattern, said.answer):
            renderer = self._engine.renderer(self._judge(pending.question))
            before = renderer.up_to_answer(pending.prompt, done.token_ids)
            return replace(pending, before=before, thinking=said.thinking, thought=True)
        return Reading(
            parse(said.answer), said.answer, said.thinking, token_ids=pending.before + done.token_ids
        )

    @abstractmethod
    def _judge(self, question: Q) -> ModelRef:
        """The judge of `question`."""

    @abstractmethod
    def _prompt(self, question: Q) -> Prompt:
        """The judge prompt. Raises PromptTooLong."""

    @abstractmethod
    def _request(self, pending: Pending[Q]) -> Request:
        """The next request; its key is the question's."""

    @abstractmethod
    def _read(self, pending: Pending[Q], done: Completion) -> Reading | Pending[Q]:
        """The parsed reply; a Pending if `done` ended with thinking or reasoning, and the score must be requested next."""

    @abstractmethod
    def _row(self, pending: Pending[Q], verdict: Reading, prompt_tokens: int) -> R:
        """The row of a finished question."""
