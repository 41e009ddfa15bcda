"""Why an endpoint gave no answer: whether to ask again, and what a person can do about it. Texts from here never hold the key."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from sparta.engines.api.protocol import Garbled
from sparta.recipes import engine as recipe_engine

PATIENCE = 600.0
"""Seconds that an endpoint may ask to be left alone."""
SHOWN = 300
"""Characters of what an endpoint says that are passed on."""

_OVERFLOW = re.compile(
    r"context.(length|window|limit)|maximum.context|too many tokens|(prompt|input).{0,20}too long"
    r"|max_(completion_|new_)?tokens\W.{0,40}(too large|must be (<=|at least 1, got (0|-)))",
    re.I,
)
# As OpenAI, Anthropic, TGI and the versions of vLLM write it. What a prompt has "at least" is no length.
_CONTEXT_HOLDS = re.compile(r"context length (?:is|of) (\d+)|\d \+ \d+ > (\d+)|must be <= (\d+)", re.I)
_PROMPT_HAS = re.compile(
    r"(\d+) in the (?:messages|prompt|input)|\((\d+) \+ \d+\)|(\d+) \+ \d+ > \d"
    r"|(?:contains|has|resulted in|given:) (\d+) (?:(?:input|prompt) tokens|tokens|`?inputs)",
    re.I,
)
_PROMPT_ALONE = re.compile(r"without any output tokens|at least 1, got|(prompt|input).{0,20}too long", re.I)
_WRITES_AT_MOST = re.compile(r"at most (\d+) completion tokens", re.I)
_FILTERS = ("content_filter", "content_policy_violation")


class ContextOverflow(Exception):
    """The endpoint's context does not hold the prompt and as many new tokens as it was asked for.

    left: how many new tokens it has room for after the prompt; not positive where the prompt alone is too long, None where it does not say.
    """

    def __init__(self, left: int | None) -> None:
        super().__init__()
        self.left = left


class PromptFiltered(Exception):
    """The endpoint's content filter lets the prompt through to no model."""


@dataclass(frozen=True)
class ApiFailure:
    """Why a try failed. again: another may succeed. wait: seconds that the endpoint asks for. remedy: what a person can do."""

    what: str
    again: bool
    wait: float = 0.0
    remedy: str = "see that it runs and is not overloaded"


def failure_of(error: Exception, settings: recipe_engine.Api) -> ApiFailure:
    """What `error` (of the client, or Garbled) means. Raises ContextOverflow and PromptFiltered."""
    if isinstance(error, Garbled):
        return ApiFailure(f"answered with {_plain(str(error), settings)}", again=True)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return ApiFailure(f"gave no answer in {settings.timeout:g} seconds", again=True)
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        why = _plain(str(cause), settings) or type(cause).__name__
        return ApiFailure(f"could not be reached ({why})", again=True)
    status, what = error.status_code, answered(error, settings)
    if status == 429 and "insufficient_quota" not in said(error):
        wait = _retry_after(error)
        return ApiFailure(what, wait <= PATIENCE, wait, remedy="lower engine.api.concurrency or wait")
    if status in (408, 409) or status >= 500:
        return ApiFailure(what, again=True, wait=_retry_after(error))
    if status == 400 and error.code in _FILTERS:
        raise PromptFiltered
    if status in (400, 413, 422) and _OVERFLOW.search(said(error)):
        raise ContextOverflow(_left(said(error)))
    remedies = {
        401: f"put a valid key into the environment variable {settings.key_variable}",
        403: f"use a key in {settings.key_variable} that may do this",
        404: "correct engine.api.url, or name the model in engine.api.models as the endpoint calls it",
        429: "see to the account that the key belongs to",
    }
    return ApiFailure(what, again=False, remedy=remedies.get(status, "change the setting that it names"))


def answered(error: openai.APIStatusError, settings: recipe_engine.Api) -> str:
    """Status and sentence of an answer."""
    body: Any = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    return f"answered HTTP {error.status_code}: {_plain(str(message or said(error)), settings)}"


def said(error: openai.APIStatusError) -> str:
    """Everything in the body of an answer. Not for people: it may repeat the key."""
    return error.response.text


def secret_in(variable: str) -> str:
    """The key in the environment variable, "" where there is none; a line break behind it is not part of it."""
    return os.environ.get(variable, "").strip()


def _left(text: str) -> int | None:
    """New tokens that there is room for, by what an endpoint says of a request that is too long; None where it does not say."""
    if _PROMPT_ALONE.search(text):
        return 0
    if most := _WRITES_AT_MOST.search(text):
        return int(most[1])
    holds, has = _CONTEXT_HOLDS.search(text), _PROMPT_HAS.search(text)
    return _number(holds) - _number(has) if holds and has else None


def _number(match: re.Match[str]) -> int:
    """The one group that took part in `match`."""
    return int(match[match.lastindex or 0])


def _plain(text: str, settings: recipe_engine.Api) -> str:
    """`text` on one line, without the key and then not too long."""
    key = secret_in(settings.key_variable)
    return " ".join((text.replace(key, "***") if key else text).split())[:SHOWN]


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that the endpoint asks to wait; 0 where it does not say."""
    header = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
