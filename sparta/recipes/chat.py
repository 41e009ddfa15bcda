"""The recipe section for chat templates and thinking."""

import datetime
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from sparta.arena.rules import Rules
from sparta.chat.options import ChatOptions
from sparta.chat.thinking import KNOWN, Tags

OURS = frozenset(
    [
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "strftime_now",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    ]
)
"""Arguments of a chat template that a recipe may not set."""


class ThinkingTags(Rules):
    """The tags that a model writes around its thinking."""

    open: str = Field(min_length=1, description="such as `<think>`")
    close: str = Field(min_length=1, description="such as `</think>`")


class ChatSettings(Rules):
    """How chat templates are rendered, and how thinking is separated from answers."""

    date: datetime.date | None = Field(
        default=None,
        description="the date that chat templates may print, such as 2026-11-28; null: the day on which the run began, for the whole run",
    )
    template_kwargs: dict[str, JsonValue] = Field(
        default={}, description="passed to every chat template, such as {enable_thinking: false}"
    )
    thinking: Literal["auto", "off"] | ThinkingTags = Field(
        default="auto",
        description="auto: the tags in the base's chat template or tokenizer; {open, close}: these tags; off: everything that a model writes is the answer",
    )
    thinking_tokens: int = Field(
        default=1024,
        ge=0,
        description="maximum new tokens for thinking, in addition to those for the answer; only for models whose chat template has thinking",
    )

    @field_validator("thinking", mode="before")
    @classmethod
    def _off_is_a_word(cls, given: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return "off" if given is False else given

    @field_validator("template_kwargs")
    @classmethod
    def _nothing_of_ours(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OURS & given.keys()):
            raise ValueError(f"{', '.join(taken)} cannot be set here, because runs set it: leave it out")
        return given

    def options(self, began: datetime.date) -> ChatOptions:
        """The options of a run that began on that day."""
        return ChatOptions(self.date or began, self.template_kwargs, self._tags(), self.thinking_tokens)

    def options_now(self) -> ChatOptions:
        """The options of a run that would begin now, for checks before a run exists."""
        return self.options(datetime.datetime.now(datetime.UTC).date())

    def _tags(self) -> Tags | Literal["auto", "off"]:
        if not isinstance(self.thinking, ThinkingTags):
            return self.thinking
        given = Tags(self.thinking.open, self.thinking.close)
        return next((tags for tags in KNOWN if (tags.open, tags.close) == (given.open, given.close)), given)
