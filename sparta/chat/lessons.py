"""Chats as models learn to answer in them: token ids, and which of them are taught."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparta.chat.template import ChatTemplate, Message, beginning
from sparta.chat.thinking import split
from sparta.errors import SpartaError


class Lesson(NamedTuple):
    """taught: for each token whether it is an answer's, to be learnt, or stands there to be read."""

    token_ids: tuple[int, ...]
    taught: tuple[bool, ...]


def lessons(template: ChatTemplate, messages: Sequence[Message]) -> list[Lesson]:
    """What is learnt from a chat: its assistant's turns, each with the special token that ends it. What comes after the last one is left out.

    What stands before an answer is what the model is asked with. Where a template knows of thinking, it leaves earlier thoughts out of a prompt
    and so has no one text for all answers: there is a lesson for each of them; elsewhere one for all, in which later answers follow earlier ones
    as they were taught.

    Raises SpartaError where there is no answer, or nothing before one, and where the chat template does not let an answer stand as it was
    given (leaves out, adds, or sets no token at its end).
    """
    turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not turns or turns[0] == 0:
        lack = "begins with a turn of the assistant" if turns else "has no turn of the assistant"
        raise SpartaError(f"a chat to learn from {lack}: leave out the one that begins {beginning(messages)}")
    if template.knows_thinking:
        return [_of_one(template, messages[: at + 1]) for at in turns]
    return [_of_all(template, messages[: turns[-1] + 1], turns)]


def _of_one(template: ChatTemplate, messages: Sequence[Message]) -> Lesson:
    """The last of `messages`, an answer: with its thinking where the template leaves room for some, and with an empty thought where there is none."""
    *earlier, last = messages
    said = split(last.content, template.tags, opened=False)
    if not said.ended:
        raise SpartaError(
            f"an answer to learn from is a thought that does not end: leave out the chat that begins {beginning(messages)}"
        )
    prompt, state = template.prompted(earlier)
    hidden, marks = template.hidden([*earlier, Message(last.role, said.answer)])
    whole = template.text(hidden, reply=False)
    answer = hidden[-1].content.strip()
    place = whole.rfind(answer) + len(answer)
    ending = template.special_at(whole, place + len(whole[place:]) - len(whole[place:].lstrip()))
    if not ending:
        raise _changed(template, messages)
    reply = template.reply(said.thinking, _shown(answer, marks), state) + template.ids(ending, {})
    return Lesson(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))


def _of_all(template: ChatTemplate, messages: Sequence[Message], turns: Sequence[int]) -> Lesson:
    """The answers of `messages`, which are `turns`."""
    hidden, marks = template.hidden(messages)
    whole = template.text(hidden, reply=False)
    ids: list[int] = []
    taught: list[bool] = []
    place = 0
    for at in turns:
        prompt = template.text(hidden[:at], reply=True)
        # From the token that ended the answer before, so that what follows it is read as in a whole prompt.
        before = (
            template.ids(whole[place : len(prompt)], marks)[1:] if ids else template.ids_of(messages[:at])
        )
        said = _said(hidden[at].content, whole, len(prompt)) if whole.startswith(prompt) else None
        place = len(prompt) + len(said or "")
        ending = template.special_at(whole, place)
        if said is None or not ending:
            raise _changed(template, messages)
        answer = template.encode(_shown(said, marks)) + template.ids(ending, {})
        ids += before + answer
        taught += [False] * len(before) + [True] * len(answer)
    return Lesson(tuple(ids), tuple(taught))


def _changed(template: ChatTemplate, messages: Sequence[Message]) -> SpartaError:
    return SpartaError(
        f"the chat template of base {template.base} does not keep the answers of a chat as they are, each with a "
        "special token at its end, so nothing can be learnt from it: use another base, or a tokenizer with a plain template, or "
        f"leave out the chat that begins {beginning(messages)}"
    )


def _said(content: str, text: str, place: int) -> str | None:
    """What stands at `place` of `text` for a turn with this content: the content, at its ends with the space that the template leaves or sets.

    None where it is not there.
    """
    found = re.compile(rf"\s*{re.escape(content.strip())}\s*").match(text, place)
    return found and found[0]


def _shown(text: str, marks: Mapping[str, str]) -> str:
    for mark, token in marks.items():
        text = text.replace(mark, token)
    return text
