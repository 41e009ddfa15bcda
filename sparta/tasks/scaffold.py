"""What stands around a question where it is asked as bare text, to be gone on with: `Question: ... Answer:`. A chat template needs none of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from sparta.chat.template import Message


@dataclass(frozen=True)
class Scaffold:
    """lead: how every prompt of the task begins, asked either way. before, after: what bare text has between that and the question, and behind it."""

    lead: str = ""
    before: str = ""
    after: str = ""

    def added(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """`messages` as bare text asks them."""
        *earlier, last = messages
        if self._is_in(last):
            return tuple(messages)
        question = last.content.removeprefix(self.lead)
        return (*earlier, replace(last, content=f"{self.lead}{self.before}{question}{self.after}"))

    def removed(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """`messages` without it, as data have it that earlier versions prepared."""
        *earlier, last = messages
        if not self._is_in(last):
            return tuple(messages)
        question = last.content.removeprefix(self.lead + self.before).removesuffix(self.after)
        return (*earlier, replace(last, content=f"{self.lead}{question}"))

    def _is_in(self, turn: Message) -> bool:
        return turn.content.startswith(self.lead + self.before) and turn.content.endswith(self.after)


BARE = Scaffold()
"""None: the question is asked as it is."""
