"""The text around a question in a prompt without chat template, for the model to continue: `Question: ... Answer:`."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from sparta.chat.template import Message


@dataclass(frozen=True)
class Scaffold:
    """lead: the beginning of every prompt of the task, with and without chat template. before, after: the text before and after the question,
    only without chat template.
    """

    lead: str = ""
    before: str = ""
    after: str = ""

    def added(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """`messages` with the scaffold, for a prompt without chat template."""
        *earlier, last = messages
        if self._is_in(last):
            return tuple(messages)
        question = last.content.removeprefix(self.lead)
        return (*earlier, replace(last, content=f"{self.lead}{self.before}{question}{self.after}"))

    def removed(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """`messages` without the scaffold, which data prepared by earlier versions contain."""
        *earlier, last = messages
        if not self._is_in(last):
            return tuple(messages)
        question = last.content.removeprefix(self.lead + self.before).removesuffix(self.after)
        return (*earlier, replace(last, content=f"{self.lead}{question}"))

    def _is_in(self, turn: Message) -> bool:
        return turn.content.startswith(self.lead + self.before) and turn.content.endswith(self.after)


BARE = Scaffold()
"""No scaffold: the question is used unchanged."""
