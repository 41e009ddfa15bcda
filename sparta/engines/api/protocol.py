"""The endpoint's protocol: request bodies, and strict parsing of answers. Pure: no network, no clock."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from sparta.engines.base import Label, Request

TOP_LOGPROBS = 20
"""The maximum of OpenAI and vLLM."""
LIMIT = "max_tokens"
"""The field of a body that limits the new tokens. Some endpoints take it by another name: see `Endpoint`."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens that an endpoint charges for an answer; 0 if it does not report them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Garbled(Exception):
    """An invalid answer; the message says what arrived instead. usage: what it is charged for anyway."""

    def __init__(self, what: str, usage: Usage) -> None:
        super().__init__(what)
        self.usage = usage


class Filtered(Garbled):
    """A content filter ended the answer. A retry may pass."""


@dataclass(frozen=True)
class ApiAnswer:
    """A valid answer. label_probs: [labels] for label requests, empty if none of them is among the most likely tokens.

    reasoning: the model's thinking, if the endpoint returns it separately; else "".
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
    """The body of a chat completion request. name: of the model at the endpoint. template_kwargs: arguments of the chat template, for `vllm serve`.

    Label requests use temperature 1, where all endpoints define log-probabilities alike, and no seed, since nothing is
    sampled.
    """
    messages = [{"role": message.role, "content": message.content} for message in request.prompt.messages]
    body: dict[str, Any] = {"model": name, "messages": messages}
    if dialect == "vllm" and template_kwargs:
        body["chat_template_kwargs"] = dict(template_kwargs)
    if request.labels:
        return {**body, "temperature": 1.0, LIMIT: 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    sampling = request.sampling
    body |= {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        LIMIT: sampling.max_new_tokens,
        "seed": request.seed,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if dialect == "vllm":
        # Sent even if they are off: the server would use the base's own defaults for omitted fields.
        body |= {"top_k": sampling.top_k, "repetition_penalty": 1.0, "include_stop_str_in_output": True}
        if request.pattern:
            body["structured_outputs"] = {"regex": request.pattern}
    return body


def key_of(request: Request, body: dict[str, Any], served: str) -> str:
    """sha256, in hex, of all that an answer depends on. served: the model's name at the endpoint, without its version."""
    labels = [label.text for label in request.labels]
    content = [{**body, "model": served}, request.model.name, request.model.version, labels]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_room(body: dict[str, Any], left: int | None) -> dict[str, Any] | None:
    """`body` with max_tokens lowered to `left`; without max_tokens, so that the endpoint uses all the room there is, if `left` is unknown (None)
    or not less than before. None if no shorter request is possible.
    """
    requested = body[LIMIT]
    if requested == 1 or (left is not None and left <= 0):
        return None
    rest = {name: value for name, value in body.items() if name != LIMIT}
    return {**rest, LIMIT: left} if left is not None and left < requested else rest


class _Message(msgspec.Struct):
    """reasoning, reasoning_content: the two field names for thinking, if an endpoint returns it separately."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Token(msgspec.Struct):
    """logprob: at most 0, but for rounding."""

    token: str
    logprob: Annotated[float, msgspec.Meta(le=0.01)]


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
    """The answer in the body `data` of a response. Raises Garbled if there is none.

    An empty text, which some endpoints write as null, is a valid answer.
    """
    try:
        body = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Garbled(f"an invalid chat completion ({error}): {data.strip()!r}", _billed(data)) from error
    usage = body.usage or Usage()
    if not body.choices:
        raise Garbled("a chat completion without a choice", usage)
    choice = body.choices[0]
    if choice.finish_reason == "content_filter" and not (request.labels and choice.logprobs):
        raise Filtered("a choice that ended with finish_reason content_filter", usage)
    if request.labels:
        if choice.logprobs is None:
            raise Garbled("no log-probabilities, which judging.mode expected needs (text needs none)", usage)
        # Some endpoints return no position if the first token is the end of sequence.
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
    """The usage that `data` reports, even if the rest of it is invalid."""
    try:
        return _bills.decode(data).usage or Usage()
    except (msgspec.DecodeError, UnicodeError):
        return Usage()


def _label_probs(labels: Sequence[Label], tokens: Sequence[_Token]) -> tuple[float, ...]:
    """The labels' probabilities, renormalised over the labels, [labels]. A token with a leading space counts for its label: tokenizers differ."""
    shares = [
        math.fsum(math.exp(token.logprob) for token in tokens if token.token.strip() == label.text.strip())
        for label in labels
    ]
    total = math.fsum(shares)
    return tuple(share / total for share in shares) if total > 0 else ()
