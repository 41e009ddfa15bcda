"""All that a rendering depends on beside tokenizer and turns. Nothing else of the environment reaches one: no clock, no locale, no chance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from sparta.chat.thinking import Tags


@dataclass(frozen=True)
class ChatOptions:
    """today: the day that a template may print, one for a whole run; None where nobody has said it: a template that asks for it is then refused.

    template_kwargs: what templates are given beside the turns (`enable_thinking`, say); one that asks for none of it is not changed by it.
    thinking: the tags around a thought; "auto": those that the chat template or the tokenizer knows; "off": nothing is told apart.
    thinking_tokens: what a thought may take, beside what an answer may.
    """

    today: date | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    thinking: Tags | Literal["auto", "off"] = "auto"
    thinking_tokens: int = 0


UNDATED = ChatOptions()
"""Where there is no run, and so no day."""
