"""Why an endpoint gave no answer, whether to retry, and how to fix it. Messages from here never contain the key."""

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
"""The longest wait, in seconds, that an endpoint may ask for."""
SHOWN = 300
"""Characters of an endpoint's message that are shown."""

_OVERFLOW = re.compile(
    r"context.(length|window|limit)|maximum.context|too many tokens|(prompt|input).{0,20}too long"
    r"|max_(completion_|new_)?tokens\W.{0,40}(too large|must be (<=|at least 1, got (0|-)))",
    re.I,
)
# As OpenAI, Anthropic, TGI and several versions of vLLM write it. "At least" so many tokens is not a length.
_CONTEXT_HOLDS = re.compile(r"context length (?:is|of) (\d+)|\d \+ \d+ > (\d+)|must be <= (\d+)", re.I)
_PROMPT_HAS = re.compile(
    r"(\d+) in the (?:messages|prompt|input)|\((\d+) \+ \d+\)|(\d+) \+ \d+ > \d"
    r"|(?:contains|has|resulted in|given:) (\d+) (?:(?:input|prompt) tokens|tokens|`?inputs)",
    re.I,
)
_PROMPT_ALONE = re.compile(r"without any output tokens|at least 1, got|(prompt|input).{0,20}too long", re.I)
_WRITES_AT_MOST = re.compile(r"at most (\d+) completion tokens", re.I)
_LIMIT_BY_OTHER_NAME = re.compile(
    r"max_(completion_)?tokens\W{1,4}(is )?(not supported|unsupported|unknown|unrecognized|not permitted)"
    r"|(unsupported|unknown|unrecognized|extra).{0,40}max_(completion_)?tokens",
    re.I,
)
"""An endpoint that refuses the name of the limit of new tokens, whichever of the two it was."""
_FILTERS = ("content_filter", "content_policy_violation")


class ContextOverflow(Exception):
    """The prompt and the requested new tokens do not fit in the endpoint's context.

    left: new tokens that fit after the prompt; 0 or less if the prompt alone is too long, None if the endpoint does not say.
    """

    def __init__(self, left: int | None) -> None:
        super().__init__()
        self.left = left


class PromptFiltered(Exception):
    """The endpoint's content filter rejects the prompt."""


@dataclass(frozen=True)
class ApiFailure:
    """Why an attempt failed. again: a retry may succeed. wait: seconds that the endpoint asks to wait. remedy: how to fix it."""

    what: str
    again: bool
    wait: float = 0.0
    remedy: str = "check that it runs and is not overloaded"


def failure_of(error: Exception, settings: recipe_engine.Api) -> ApiFailure:
    """What `error` (from the client, or Garbled) means. Raises ContextOverflow and PromptFiltered."""
    if isinstance(error, Garbled):
        return ApiFailure(f"answered with {_plain(str(error), settings)}", again=True)
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return ApiFailure(f"gave no answer in {settings.timeout:g} seconds", again=True)
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        why = _plain(str(cause), settings) or type(cause).__name__
        return ApiFailure(f"could not be reached ({why})", again=True)
    status, what = error.status_code, status_and_message(error, settings)
    if status == 429 and "insufficient_quota" not in response_text(error):
        wait = _retry_after(error)
        return ApiFailure(what, wait <= PATIENCE, wait, remedy="lower engine.api.concurrency or wait")
    if status in (408, 409) or status >= 500:
        return ApiFailure(what, again=True, wait=_retry_after(error))
    if status == 400 and error.code in _FILTERS:
        raise PromptFiltered
    if status in (400, 413, 422) and _OVERFLOW.search(response_text(error)):
        raise ContextOverflow(_left(response_text(error)))
    if status in (400, 422) and _LIMIT_BY_OTHER_NAME.search(response_text(error)):
        other = str(not settings.max_completion_tokens).lower()
        return ApiFailure(what, again=False, remedy=f"set engine.api.max_completion_tokens to {other}")
    remedies = {
        401: f"put a valid key into the environment variable {settings.key_variable}",
        403: f"put a key with this permission into {settings.key_variable}",
        404: "correct engine.api.url, or give the endpoint's name of the model in engine.api.models",
        429: "check the quota of the account that the key belongs to",
    }
    return ApiFailure(what, again=False, remedy=remedies.get(status, "change the setting that it names"))


def status_and_message(error: openai.APIStatusError, settings: recipe_engine.Api) -> str:
    """HTTP status and message of an error response."""
    body: Any = error.body
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    return f"answered HTTP {error.status_code}: {_plain(str(message or response_text(error)), settings)}"


def response_text(error: openai.APIStatusError) -> str:
    """The whole body of an error response. Never show it: it may contain the key."""
    return error.response.text


def secret_in(variable: str) -> str:
    """The key in the environment variable, without surrounding whitespace; "" if there is none."""
    return os.environ.get(variable, "").strip()


def _left(text: str) -> int | None:
    """How many new tokens fit, parsed from an endpoint's error for a request that is too long; None if it does not say."""
    if _PROMPT_ALONE.search(text):
        return 0
    if most := _WRITES_AT_MOST.search(text):
        return _number(most)
    holds, has = _CONTEXT_HOLDS.search(text), _PROMPT_HAS.search(text)
    return _number(holds) - _number(has) if holds and has else None


def _number(match: re.Match[str]) -> int:
    """The one group of `match` that is set; no context has more digits than are read."""
    return int(match[match.lastindex or 0][:12])


def _plain(text: str, settings: recipe_engine.Api) -> str:
    """`text` on one line, without the key, cut to SHOWN characters."""
    key = secret_in(settings.key_variable)
    return " ".join((text.replace(key, "***") if key else text).split())[:SHOWN]


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that the endpoint asks to wait; 0 if it does not say."""
    header = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
