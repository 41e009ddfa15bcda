"""Asking a judge until what it says can be read: for votes (voting.py) and for grades of an evaluation (grade.py)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar

from sparta.chat.renderer import Prompt, PromptTooLong
from sparta.engines.base import Completion, Engine, Inbox, Request
from sparta.store.records import Row


class Question(Protocol):
    """Something that a judge is to give a score for."""

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=Question)
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Pending(Generic[Q]):
    """A question that a judge is at. tries: begun so far. working: what the judge wrote before it is asked for the score, where it works first.

    new_tokens, seconds: what all that it has written so far came to.
    """

    question: Q
    prompt: Prompt
    tries: int = 1
    working: Completion | None = None
    new_tokens: int = 0
    seconds: float = 0.0


class Reading(NamedTuple):
    """What was read. score: None where it is missing. raw: what the judge wrote."""

    score: float | None
    raw: str


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
        """What `done` leads to: the row, or the request that comes next for it: for the score after a working, or for another try."""
        before = self._pending.pop(done.key)
        pending = replace(
            before,
            new_tokens=before.new_tokens + done.new_tokens,
            seconds=before.seconds + done.seconds,
        )
        verdict = self._read(pending, done)
        if verdict is None:
            return self._pose(replace(pending, working=done))
        again = pending.tries < self._tries and done.finish_reason != "prompt_too_long"
        if verdict.score is None and again:
            return self._pose(replace(pending, tries=pending.tries + 1, working=None))
        return self._row(pending, verdict, done.prompt_tokens)

    def _pose(self, pending: Pending[Q]) -> Request:
        self._pending[pending.question.key] = pending
        return self._request(pending)

    @abstractmethod
    def _prompt(self, question: Q) -> Prompt:
        """What the judge reads. Raises PromptTooLong."""

    @abstractmethod
    def _request(self, pending: Pending[Q]) -> Request:
        """What is asked now; its key is that of the question."""

    @abstractmethod
    def _read(self, pending: Pending[Q], done: Completion) -> Reading | None:
        """What `done` says; None where it is a working, after which the score is asked for."""

    @abstractmethod
    def _row(self, pending: Pending[Q], verdict: Reading, prompt_tokens: int) -> R:
        """The row of a question that is settled."""
