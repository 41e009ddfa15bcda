"""The part of a recipe that says how turns become prompts, whatever base renders them, and how thinking is told from answers."""

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
"""What a chat template is given by this suite alone."""


class ThinkingTags(Rules):
    """What a model writes around its thinking."""

    open: str = Field(min_length=1, description="<think>, say")
    close: str = Field(min_length=1, description="</think>, say")


class Chat(Rules):
    """How chat templates are rendered, and how thinking is told from answers."""

    date: datetime.date | None = Field(
        default=None,
        description="the day that templates print which print one, 2026-11-28 say; null: the day on which the run began, however long it goes on",
    )
    template_kwargs: dict[str, JsonValue] = Field(
        default={}, description="given to every chat template: {enable_thinking: false}, say"
    )
    thinking: Literal["auto", "off"] | ThinkingTags = Field(
        default="auto",
        description="auto: the tags that the base's chat template or tokenizer knows; {open, close}: these; off: all that is written is the answer",
    )
    thinking_tokens: int = Field(
        default=1024,
        ge=0,
        description="most new tokens for thinking, beside those for the answer; for models whose chat template leaves room for thinking, no others",
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
            raise ValueError(f"{', '.join(taken)} cannot be set here: a run renders its prompts itself")
        return given

    def options(self, began: datetime.date) -> ChatOptions:
        """For a run that began on that day."""
        return ChatOptions(self.date or began, self.template_kwargs, self._tags(), self.thinking_tokens)

    def options_now(self) -> ChatOptions:
        """For a run that begins now: for what is tried before there is one."""
        return self.options(datetime.datetime.now(datetime.UTC).date())

    def _tags(self) -> Tags | Literal["auto", "off"]:
        if not isinstance(self.thinking, ThinkingTags):
            return self.thinking
        given = Tags(self.thinking.open, self.thinking.close)
        return next((tags for tags in KNOWN if (tags.open, tags.close) == (given.open, given.close)), given)
