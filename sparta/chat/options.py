"""All that a rendering depends on beside tokenizer and turns. Nothing else of the environment reaches one: no clock, no locale, no chance."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class ChatOptions:
    """today: the day that a template may print, one for a whole run; None where nobody has said it: a template that asks for it is then refused."""

    today: date | None = None


UNDATED = ChatOptions()
"""Where there is no run, and so no day."""
