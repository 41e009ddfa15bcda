"""Turns chats into token sequences for supervised training, with a loss mask over the answers."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparta.chat.template import ChatTemplate, Message, beginning
from sparta.chat.thinking import split
from sparta.errors import SpartaError


class SftSequence(NamedTuple):
    """is_target: for each token, whether it belongs to an answer (the loss is on it) or to the context."""

    token_ids: tuple[int, ...]
    is_target: tuple[bool, ...]


def sft_examples(template: ChatTemplate, messages: Sequence[Message]) -> list[SftSequence]:
    """The training sequences of a chat. Targets are the assistant's turns, each with its end token; turns after the last one are left out.

    The tokens before an answer are exactly the prompt that the model is asked with. A template with thinking leaves earlier thoughts out
    of a prompt, so no single text holds the prompts of all answers: there is one sequence per answer. Other templates give one sequence
    for all answers.

    Raises SpartaError if the chat has no answer or begins with one, or if the chat template changes an answer (drops text, adds text, or
    puts no special token at its end).
    """
    turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
    if not turns or turns[0] == 0:
        problem = "begins with a turn of the assistant" if turns else "has no turn of the assistant"
        raise SpartaError(
            f"a chat to train on {problem}: leave out the one that begins {beginning(messages)}"
        )
    if template.has_thinking:
        return [_of_one(template, messages[: at + 1]) for at in turns]
    return [_of_all(template, messages[: turns[-1] + 1], turns)]


def _of_one(template: ChatTemplate, messages: Sequence[Message]) -> SftSequence:
    """The sequence for the last of `messages`, an answer.

    If the template has room for thinking, the target includes the thinking; it is an empty thought if the answer has none.
    """
    *earlier, last = messages
    reply = split(last.content, template.tags, opened=False)
    if not reply.ended:
        raise SpartaError(
            f"an answer to train on has thinking that does not end: leave out the chat that begins {beginning(messages)}"
        )
    prompt, state = template.prompt_of(earlier)
    hidden, marks = template.hidden([*earlier, Message(last.role, reply.answer)])
    whole = template.text(hidden, reply=False)
    answer = hidden[-1].content.strip()
    place = whole.rfind(answer) + len(answer)
    ending = template.special_at(whole, place + len(whole[place:]) - len(whole[place:].lstrip()))
    if not ending:
        raise _changed(template, messages)
    target = template.reply(reply.thinking, _shown(answer, marks), state) + template.ids(ending, {})
    return SftSequence(prompt + target, (False,) * len(prompt) + (True,) * len(target))


def _of_all(template: ChatTemplate, messages: Sequence[Message], turns: Sequence[int]) -> SftSequence:
    """The sequence for all answers of `messages`. turns: the indices of the answers."""
    hidden, marks = template.hidden(messages)
    whole = template.text(hidden, reply=False)
    ids: list[int] = []
    is_target: list[bool] = []
    place = 0
    for at in turns:
        prompt = template.text(hidden[:at], reply=True)
        # Tokenized from the token that ends the previous answer, so that the text after it gets the same ids as in a whole prompt.
        before = (
            template.ids(whole[place : len(prompt)], marks)[1:] if ids else template.ids_of(messages[:at])
        )
        content = _content_at(hidden[at].content, whole, len(prompt)) if whole.startswith(prompt) else None
        place = len(prompt) + len(content or "")
        ending = template.special_at(whole, place)
        if content is None or not ending:
            raise _changed(template, messages)
        answer = template.encode(_shown(content, marks)) + template.ids(ending, {})
        ids += before + answer
        is_target += [False] * len(before) + [True] * len(answer)
    return SftSequence(tuple(ids), tuple(is_target))


def _changed(template: ChatTemplate, messages: Sequence[Message]) -> SpartaError:
    return SpartaError(
        f"the chat template of base {template.base} does not keep the answers of a chat unchanged, each with a "
        "special token at its end, so the chat cannot be trained on: use another base, or a tokenizer with a plain template, or "
        f"leave out the chat that begins {beginning(messages)}"
    )


def _content_at(content: str, text: str, place: int) -> str | None:
    """The rendering of a turn's content at `place` of `text`: the content with the white space that the template puts around it.

    None if the content is not there.
    """
    found = re.compile(rf"\s*{re.escape(content.strip())}\s*").match(text, place)
    return found and found[0]


def _shown(text: str, marks: Mapping[str, str]) -> str:
    """`text` with the special tokens put back that `ChatTemplate.hidden` replaced by `marks`."""
    for mark, token in marks.items():
        text = text.replace(mark, token)
    return text
