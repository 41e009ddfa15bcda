"""Asking a judge until what it says can be read: for votes (judge.py) and for grades of an evaluation (grade.py)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from sparta.chat.renderer import Prompt, PromptTooLong
from sparta.chat.thinking import Said
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request
from sparta.store.records import Row


class Question(Protocol):
    """Something that a judge is to give a score for."""

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=Question)
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Pending(Generic[Q]):
    """A question that a judge is at. tries: begun so far.

    before: what this try has written so far and goes on from: token ids behind the prompt. thinking: those of them that are a thought, as text.
    working: the line that a judge writes before its score, where it works first; None before that is written. thought: whether the judge has
    thought, or is not to. new_tokens, seconds: what all that it has written so far came to.
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
    """What was read. score: None where it is missing. raw: what the judge wrote, less `thinking`. answered: False where its thinking never ended.

    token_ids: all that was written in this try, thinking included, where it was text.
    """

    score: float | None
    raw: str
    thinking: str = ""
    answered: bool = True
    token_ids: tuple[int, ...] = ()


class JudgeDialog(ABC, Generic[Q, R]):
    """Turns questions into requests, and completions into rows or into the next request on the way to one. tries: at most, of each question."""

    def __init__(self, engine: Engine, tries: int) -> None:
        self._engine = engine
        self._tries = tries
        self._pending: dict[str, Pending[Q]] = {}

    def ask_all(self, questions: Iterable[Q], write: Callable[[R], None]) -> None:
        """Have the engine answer all `questions`; each row is written as soon as it is there."""
        inbox = Inbox(self.requests(questions, write))
        for done in self._engine.run(inbox):
            heard = self.hear(done)
            if isinstance(heard, Request):
                inbox.put(heard)
            else:
                write(heard)

    def requests(self, questions: Iterable[Q], write: Callable[[R], None]) -> Iterator[Request]:
        """The first request for each question. One whose prompt leaves no room is no request, but a missing score at once: it is written."""
        for question in questions:
            asked = self.ask(question)
            if isinstance(asked, Request):
                yield asked
            else:
                write(asked)

    def ask(self, question: Q) -> Request | R:
        """The first request for `question`, or the row of a missing score where its prompt leaves no room."""
        try:
            prompt = self._prompt(question)
        except PromptTooLong:
            return self._row(Pending(question, Prompt((), None)), Reading(None, ""), 0)
        return self._pose(Pending(question, prompt))

    def hear(self, done: Completion) -> Request | R:
        """What `done` leads to: the row, or the request that comes next for it: for the score after a thought or a working, or for another try."""
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
        """Whether what the judge writes now may begin with a thought. It is then held to no form, which would keep it from thinking."""
        return pending.prompt.invites_thinking and not pending.thought

    def _said(self, pending: Pending[Q], done: Completion) -> Said:
        """What the judge has thought and answered in this try."""
        if pending.thought:
            return Said(pending.thinking, done.text)
        return self._engine.renderer(self._judge(pending.question)).said(pending.prompt, done.text)

    def _reading(
        self, pending: Pending[Q], done: Completion, form: str, parse: Callable[[str], float | None]
    ) -> Reading | Pending[Q]:
        """What `done` says. form: a regular expression that the answer is held to; "": none.

        Behind a thought nothing was held to it: an answer that does not have it all the same is asked for once more, in that form, from the
        thought on. An endpoint goes on from nothing, and its answer is taken as it is.
        """
        said = self._said(pending, done)
        if not said.ended:
            return Reading(None, "", said.thinking, answered=False)
        if form and self._thinks(pending) and done.token_ids and not re.fullmatch(form, said.answer):
            renderer = self._engine.renderer(self._judge(pending.question))
            before = renderer.up_to_answer(pending.prompt, done.token_ids)
            return replace(pending, before=before, thinking=said.thinking, thought=True)
        return Reading(
            parse(said.answer), said.answer, said.thinking, token_ids=pending.before + done.token_ids
        )

    @abstractmethod
    def _judge(self, question: Q) -> ModelRef:
        """Who is asked."""

    @abstractmethod
    def _prompt(self, question: Q) -> Prompt:
        """What the judge reads. Raises PromptTooLong."""

    @abstractmethod
    def _request(self, pending: Pending[Q]) -> Request:
        """What is asked now; its key is that of the question."""

    @abstractmethod
    def _read(self, pending: Pending[Q], done: Completion) -> Reading | Pending[Q]:
        """What `done` says; a question where it is a thought or a working, after which the score is asked for."""

    @abstractmethod
    def _row(self, pending: Pending[Q], verdict: Reading, prompt_tokens: int) -> R:
        """The row of a question that is settled."""
