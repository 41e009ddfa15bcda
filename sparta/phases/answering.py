"""Requests for sampled answers, and the fields of their rows: for the responses of combats and for the candidates of one model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, TypedDict, TypeVar

from sparta import rng
from sparta.chat.renderer import Prompt
from sparta.chat.template import Message
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.store.records import FinishReason
from sparta.store.run import Run

Q = TypeVar("Q")


class AnswerFields(TypedDict):
    """The fields that the rows of all sampled answers share; state/README.md documents them (see Response)."""

    model: str
    text: str
    token_ids: tuple[int, ...]
    tokenizer: str
    prompt_tokens: int
    new_tokens: int
    finish_reason: FinishReason
    seconds: float
    thinking: str
    answered: bool


class _Pending(NamedTuple, Generic[Q]):
    question: Q
    model: ModelRef
    prompt: Prompt


class SampledAnswers(Generic[Q]):
    """Turns questions of type Q into requests with the settings of `generation`, and completions into fields of rows.

    purpose: part of the names of the random streams of iteration t; every request has its own stream.
    """

    def __init__(self, run: Run, t: int, engine: Engine, purpose: str) -> None:
        self._engine = engine
        self._stream = (run.recipe.seed, t, purpose)
        settings = run.recipe.generation
        self._sampling = Sampling(
            settings.temperature, settings.top_p, settings.top_k, settings.max_new_tokens
        )
        self._pending: dict[str, _Pending[Q]] = {}

    def is_pending(self, key: str) -> bool:
        """Whether the request with this key has no answer yet."""
        return key in self._pending

    def _request(
        self,
        key: str,
        question: Q,
        model: ModelRef,
        messages: Sequence[Message],
        stream: tuple[int | str, ...],
    ) -> Request:
        """The request to `model` to answer `messages`. stream: the rest of the name of its random stream."""
        renderer = self._engine.renderer(model)
        prompt = renderer.combat(messages)
        self._pending[key] = _Pending(question, model, prompt)
        limit = renderer.limit(prompt, self._sampling.max_new_tokens)
        return Request(
            key=key,
            model=model,
            prompt=prompt,
            sampling=replace(self._sampling, max_new_tokens=limit),
            seed=rng.seed_of(*self._stream, *stream),
        )

    def _answer(self, done: Completion) -> tuple[Q, AnswerFields]:
        """The question that `done` answers, and the fields of its row."""
        question, model, prompt = self._pending.pop(done.key)
        said = self._engine.renderer(model).split_reply(prompt, done.text)
        return question, {
            "model": model.name,
            "text": said.answer,
            "token_ids": done.token_ids,
            "tokenizer": self._engine.tokenizer_fingerprint(model) if done.token_ids else "",
            "prompt_tokens": done.prompt_tokens,
            "new_tokens": done.new_tokens,
            "finish_reason": done.finish_reason,
            "seconds": done.seconds,
            "thinking": said.thinking,
            "answered": said.ended,
        }
