"""All inputs of a rendering besides tokenizer and turns. A rendering does not depend on the clock, the locale or randomness."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from sparta.chat.thinking import Tags


@dataclass(frozen=True)
class ChatOptions:
    """today: the date that templates may print, the same for a whole run; if None, a template that prints the date is refused.

    template_kwargs: extra arguments of the chat template, such as `enable_thinking`. thinking: the tags around thinking; "auto": the tags
    found in the chat template or the tokenizer; "off": thinking is not separated from the answer. thinking_tokens: maximum number of
    tokens for thinking, in addition to the limit for the answer.
    """

    today: date | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    thinking: Tags | Literal["auto", "off"] = "auto"
    thinking_tokens: int = 0


UNDATED = ChatOptions()
"""Options for use outside a run, without a date."""
