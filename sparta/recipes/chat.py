"""The part of a recipe that says how turns become prompts, whatever base renders them."""

import datetime

from pydantic import Field

from sparta.arena.rules import Rules
from sparta.chat.options import ChatOptions


class Chat(Rules):
    """How chat templates are rendered."""

    date: datetime.date | None = Field(
        default=None,
        description="the day that templates print which print one, 2026-11-28 say; null: the day on which the run began, however long it goes on",
    )

    def options(self, began: datetime.date) -> ChatOptions:
        """For a run that began on that day."""
        return ChatOptions(today=self.date or began)

    def options_now(self) -> ChatOptions:
        """For a run that begins now: for what is tried before there is one."""
        return self.options(datetime.datetime.now(datetime.UTC).date())
