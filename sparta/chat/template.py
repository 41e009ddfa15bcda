"""Converts the turns of a chat to token ids with a tokenizer and its chat template.

Only the template adds special tokens. If the text of a turn spells one, it is encoded as plain text.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import Any

import msgspec

from sparta.chat.options import ChatOptions
from sparta.chat.template_check import Role, probe, syntax_error
from sparta.chat.thinking import KNOWN, THINK, State, Tags, split, tags_in
from sparta.errors import SpartaError


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a chat. `role` is system, user or assistant."""

    role: Role
    content: str


class ChatTemplate:
    """A transformers tokenizer with its chat template.

    special_tokens, special_ids: the special tokens and their ids, without the unknown token's id.
    """

    def __init__(self, tokenizer: Any, options: ChatOptions) -> None:
        self.tokenizer, self.options = tokenizer, options
        self._added: Mapping[int, Any] = tokenizer.added_tokens_decoder
        special = {index: token.content for index, token in self._added.items() if token.special}
        self.special_tokens = sorted(set(special.values()))
        # Text outside the vocabulary becomes the unknown token, which has no special meaning.
        self.special_ids = frozenset(special) - {getattr(tokenizer, "unk_token_id", None)}

    @property
    def base(self) -> str:
        """The base's folder, for messages."""
        return str(self.tokenizer.name_or_path)

    @cached_property
    def tags(self) -> Tags | None:
        """The tags around a model's thinking; None if thinking is not separated."""
        if self.options.thinking == "off":
            return None
        spelled = {token.content for token in self._added.values()}
        return self._own_tags or next((tags for tags in KNOWN if tags.close in spelled), THINK)

    @property
    def has_thinking(self) -> bool:
        """Whether the recipe or the chat template has thinking tags."""
        return self._own_tags is not None

    @cached_property
    def _own_tags(self) -> Tags | None:
        """The tags from the recipe or the chat template; None if neither has any."""
        if isinstance(self.options.thinking, Tags):
            return self.options.thinking
        template = self.tokenizer.chat_template
        text = template.get("default", "") if isinstance(template, dict) else str(template)
        return tags_in(text) if self.options.thinking == "auto" else None

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text: nothing is added, and a special token spelled in `text` is not parsed as one."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def written(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens, except those in the thinking tags."""
        if self._tag_tokens.keys().isdisjoint(token_ids):
            return self.decode(token_ids)
        text, piece = "", list[int]()
        for token in token_ids:
            if token in self._tag_tokens:
                text += self.decode(piece) + self._tag_tokens[token]
                piece = []
            else:
                piece.append(token)
        return text + self.decode(piece)

    @cached_property
    def _tag_tokens(self) -> dict[int, str]:
        """Id -> text of the special tokens in the thinking tags."""
        spelled = self.tags.open + self.tags.close if self.tags else ""
        return {
            index: token.content
            for index, token in self._added.items()
            if token.special and token.content.strip() and token.content in spelled
        }

    def ids_of(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of `messages` and the beginning of a reply. A special token spelled in a turn is encoded as text."""
        return self.prompt_of(messages)[0]

    def ids_of_all(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of `messages`, answers among them, without the beginning of a reply. A special token spelled in a turn is encoded as text."""
        hidden, marks = self.hidden(messages)
        return self.ids(self.text(hidden, reply=False), marks)

    def prompt_of(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], State]:
        """The token ids of `ids_of`, and whether and how the prompt lets the model think."""
        hidden, marks = self.hidden(messages)
        text = self.text(hidden, reply=True)
        return self.ids(text, marks), self._state(text, hidden[-1].content.strip())

    def _state(self, text: str, last: str) -> State:
        """The thinking state of the prompt `text`. last: the content of its last turn."""
        tags = self._own_tags
        if tags is None:
            return "none"
        reply = text.rpartition(last)[2] if last else text
        opened, closed = reply.rfind(tags.open), reply.rfind(tags.close)
        if opened > closed:
            return "opened"
        return "free" if closed < 0 else "closed"

    def check_roles(self, roles: Sequence[Role]) -> None:
        """Raise SpartaError, naming base and turn, if a prompt with these roles would lack a turn."""
        turns = [Message(role, text) for role, text in probe(roles)]
        self.text(turns, reply=True)

    @property
    def is_dated(self) -> bool:
        """Whether prompts contain the date."""
        turns = [Message(role, text) for role, text in probe(["user"])]
        texts = {
            ChatTemplate(self.tokenizer, replace(self.options, today=day)).text(turns, reply=True)
            for day in (date(2001, 2, 3), date(2014, 5, 6))
        }
        return len(texts) > 1

    def text(self, messages: Sequence[Message], reply: bool) -> str:
        """`messages` rendered by the chat template. reply: with the beginning of a reply. Raises SpartaError if a message is missing from it."""
        text = self._rendered(messages, [message.content for message in messages], reply)
        self._require_all(messages, text)
        return text

    def _require_all(self, messages: Sequence[Message], text: str) -> None:
        """Raise SpartaError if a turn of `messages` is not in `text`. A template may leave out the thinking of earlier assistant turns."""
        for number, message in enumerate(messages, start=1):
            answered = split(message.content, self.tags, opened=False).answer
            content = answered if message.role == "assistant" else message.content
            if content.strip() not in text:
                raise self._left_out(messages, number)

    def _rendered(self, messages: Sequence[Message], contents: Sequence[object], reply: bool) -> str:
        """The rendering of turns with the roles of `messages` and these contents."""
        import jinja2

        turns = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        values = {**self.options.template_kwargs, "strftime_now": self._today}
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=reply, tokenize=False, **values
                )
            )
        except jinja2.TemplateSyntaxError as error:
            raise syntax_error(self.base, error) from error
        except jinja2.TemplateError as error:
            raise SpartaError(
                f"the chat template of base {self.base} refuses {_named(messages)} ({error}): leave out such prompts, or use another base"
            ) from error
        except SpartaError:
            raise
        except Exception as error:  # a template can raise anything
            raise SpartaError(
                f"the chat template of base {self.base} fails on {_named(messages)} ({type(error).__name__}: {error}): "
                "leave out such prompts, correct the template, or use another base"
            ) from error

    def _left_out(self, messages: Sequence[Message], number: int) -> SpartaError:
        """The error for a prompt that lacks turn `number` (from 1) of `messages`."""
        role, content = messages[number - 1].role, messages[number - 1].content
        where = f"the {role} turn, number {number} of {_named(messages)}"
        parts = [[{"type": "text", "text": message.content}] for message in messages]
        with suppress(SpartaError):
            if content.strip() in self._rendered(messages, parts, reply=True):
                return SpartaError(
                    f"the chat template of base {self.base} expects content as a list of parts, like those of vision models, and leaves out {where}: "
                    "use the text-only variant of the base, or a template for text (chat_template.jinja in its folder)"
                )
        return SpartaError(
            f"the chat template of base {self.base} leaves out {where}: remove such prompts (or move the text of a system turn to the start of "
            "the user turn), or use another base"
        )

    def _today(self, form: str) -> str:
        """The date formatted by `strftime`. Templates call this instead of the clock."""
        if self.options.today is None:
            raise SpartaError(
                f"the chat template of base {self.base} prints today's date, but there is no run here that would set it: use a base whose "
                "template prints no date"
            )
        return self.options.today.strftime(form)

    def hidden(self, messages: Sequence[Message]) -> tuple[Sequence[Message], dict[str, str]]:
        """`messages` with every special token spelled in them replaced by a private-use character, and the mapping back to the tokens."""
        text = "".join(message.content for message in messages)
        spelled = [token for token in self.special_tokens if token.strip() and token in text]
        if not spelled:
            return messages, {}
        free = (mark for mark in map(chr, range(0xF0000, 0xFFFFE)) if mark not in text)
        marks = dict(zip(free, sorted(spelled, key=len, reverse=True), strict=False))
        hidden = []
        for message in messages:
            content = message.content
            for mark, token in marks.items():
                content = content.replace(token, mark)
            hidden.append(Message(message.role, content))
        return hidden, marks

    def ids(self, text: str, marks: Mapping[str, str]) -> tuple[int, ...]:
        """Token ids of a rendered text. marks: see `hidden`; the tokens that they stand for are encoded as text."""
        ids: list[int] = []
        for piece in re.split(f"([{''.join(marks)}])", text) if marks else [text]:
            if piece in marks:
                ids += self.encode(marks[piece])
            elif piece:
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
        return tuple(ids)

    def special_at(self, text: str, place: int) -> str:
        """The longest special token at `place` of `text`, or ""."""
        found = (token for token in self.special_tokens if token.strip() and text.startswith(token, place))
        return max(found, key=len, default="")

    def reply(self, thinking: str, answer: str, state: State) -> tuple[int, ...]:
        """Token ids of a reply as a model with this template would write it after a prompt in `state`, without the end token.

        If the prompt has no room for thinking, the thinking is left out. If it has room and `thinking` is empty, the reply begins with an
        empty thought.
        """
        if state in ("none", "closed"):
            return self.encode(answer)
        return self.thought(thinking, state) + self.encode(answer)

    def thought(self, thinking: str, state: State) -> tuple[int, ...]:
        """Token ids of a complete thought, empty or not, after a prompt in `state`, up to where the answer begins."""
        if self.tags is None or state in ("none", "closed"):
            return ()
        [hidden], marks = self.hidden([Message("assistant", thinking)])
        return self.ids(self.tags.thought(hidden.content, state == "opened"), marks)


def beginning(messages: Sequence[Message]) -> str:
    """The beginning of the first of `messages`, for error messages."""
    return repr(messages[0].content[:60] if messages else "")


def _named(messages: Sequence[Message]) -> str:
    roles = [message.role for message in messages]
    tried = [(message.role, message.content) for message in messages] == probe(roles)
    begins = "" if tried else f" that begins {beginning(messages)}"
    return f"a prompt with the roles {', '.join(roles)}{begins}"
