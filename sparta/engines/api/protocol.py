"""What is said to an endpoint and what it says: bodies of requests, and answers read strictly. Pure: no network, no clock."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sparta.engines.base import Label, Request

TOP_LOGPROBS = 20
"""What OpenAI and vLLM give at most."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens that an endpoint charges for an answer; none where it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Garbled(Exception):
    """An answer arrived that is none; its text says what it is instead. usage: what it is charged for all the same."""

    def __init__(self, what: str, usage: Usage) -> None:
        super().__init__(what)
        self.usage = usage


class Filtered(Garbled):
    """A content filter ended an answer. Another try may be let through."""


@dataclass(frozen=True)
class ApiAnswer:
    """An answer that was understood. label_probs: [labels] for label requests, empty where none of them is among the likeliest tokens.

    reasoning: what the model thought, where the endpoint tells it apart; "" where it does not.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    finish_reason: Literal["stop", "length"]
    label_probs: tuple[float, ...] = ()
    reasoning: str = ""


def body_of(
    request: Request,
    name: str,
    dialect: Literal["openai", "vllm"],
    template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a chat completion. name: of the model at the endpoint. template_kwargs: what its chat template is given, by `vllm serve`.

    Labels are asked for at temperature 1, where all endpoints agree on what a log-probability is, and without a seed:
    nothing is drawn.
    """
    messages = [{"role": message.role, "content": message.content} for message in request.prompt.messages]
    body: dict[str, Any] = {"model": name, "messages": messages}
    if dialect == "vllm" and template_kwargs:
        body["chat_template_kwargs"] = dict(template_kwargs)
    if request.labels:
        return {**body, "temperature": 1.0, "max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    sampling = request.sampling
    body |= {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": request.seed,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if dialect == "vllm":
        # Sent even where they are off: the server would take a base's own habits for what is left out.
        body |= {"top_k": sampling.top_k, "repetition_penalty": 1.0, "include_stop_str_in_output": True}
        if request.pattern:
            body["structured_outputs"] = {"regex": request.pattern}
    return body


def key_of(request: Request, body: dict[str, Any], served: str) -> str:
    """sha256, in hex, of all that an answer depends on. served: the model's name at the endpoint, less what says its version there."""
    labels = [label.text for label in request.labels]
    content = [{**body, "model": served}, request.model.name, request.model.version, labels]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_room(body: dict[str, Any], left: int | None) -> dict[str, Any] | None:
    """`body` for `left` new tokens; without a number, so for as many as there is room for, where that is not known (None) or no less than was
    asked for. None where nothing shorter can be asked for.
    """
    asked = body["max_tokens"]
    if asked == 1 or (left is not None and left <= 0):
        return None
    rest = {name: value for name, value in body.items() if name != "max_tokens"}
    return {**rest, "max_tokens": left} if left is not None and left < asked else rest


class _Message(msgspec.Struct):
    """reasoning, reasoning_content: what endpoints call it that tell thinking apart."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _Position(msgspec.Struct):
    top_logprobs: list[_Token]


class _Logprobs(msgspec.Struct):
    content: list[_Position] | None = None


class _ApiChoice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: _Logprobs | None = None


class _Bill(msgspec.Struct):
    usage: Usage | None = None


class _Body(_Bill, kw_only=True):
    choices: list[_ApiChoice]


_decoder = msgspec.json.Decoder(_Body)
_bills = msgspec.json.Decoder(_Bill)


def read_answer(data: str, request: Request) -> ApiAnswer:
    """The answer in the body `data` of a response. Raises Garbled where there is none.

    A model that says nothing has answered with an empty text, which some endpoints write as null.
    """
    try:
        body = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Garbled(f"no chat completion ({error}): {data.strip()!r}", _billed(data)) from error
    usage = body.usage or Usage()
    if not body.choices:
        raise Garbled("a chat completion without a choice", usage)
    choice = body.choices[0]
    if choice.finish_reason == "content_filter" and not (request.labels and choice.logprobs):
        raise Filtered("a choice that ended with finish_reason content_filter", usage)
    if request.labels:
        if choice.logprobs is None:
            raise Garbled("no log-probabilities, which judging.mode expected needs (text needs none)", usage)
        # An end of sequence in first place counts as no token for some endpoints.
        first = (choice.logprobs.content or [])[:1]
        shares = _label_probs(
            request.labels, [token for position in first for token in position.top_logprobs]
        )
        return ApiAnswer("", usage.prompt_tokens, usage.completion_tokens, "stop", shares)
    if choice.finish_reason not in ("stop", "length"):
        raise Garbled(f"a choice that ended with finish_reason {choice.finish_reason}", usage)
    if choice.message is None:
        raise Garbled("a choice without a message", usage)
    text, stop = choice.message.content or "", choice.stop_reason
    if stop in request.sampling.stop and not text.endswith(str(stop)):
        text += str(stop)
    finished: Literal["stop", "length"] = "stop" if choice.finish_reason == "stop" else "length"
    reasoning = choice.message.reasoning or choice.message.reasoning_content or ""
    return ApiAnswer(text, usage.prompt_tokens, usage.completion_tokens, finished, reasoning=reasoning)


def _billed(data: str) -> Usage:
    """What `data` says that it costs, whatever else it is."""
    try:
        return _bills.decode(data).usage or Usage()
    except (msgspec.DecodeError, UnicodeError):
        return Usage()


def _label_probs(labels: Sequence[Label], tokens: Sequence[_Token]) -> tuple[float, ...]:
    """The labels' shares of their sum, [labels]. A token counts for a label with a space before it too: tokenizers differ in that."""
    shares = [
        math.fsum(math.exp(token.logprob) for token in tokens if token.token.strip() == label.text.strip())
        for label in labels
    ]
    total = math.fsum(shares)
    return tuple(share / total for share in shares) if total > 0 else ()
