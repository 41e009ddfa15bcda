"""From the turns of a chat to token ids, by a tokenizer and its chat template: as a prompt to be answered, and as a lesson to be learnt.

What a turn spells is text to the model, be it the name of a special token: special tokens are the template's alone.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from sparta.chat.options import ChatOptions
from sparta.chat.template_check import Role, probe, syntax_error
from sparta.errors import SpartaError


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a chat. `role` is system, user or assistant."""

    role: Role
    content: str


class ChatTemplate:
    """A transformers tokenizer that has a chat template.

    special_tokens, special_ids: those that a text must not spell, and their ids.
    """

    def __init__(self, tokenizer: Any, options: ChatOptions) -> None:
        self.tokenizer, self.options = tokenizer, options
        added: Mapping[int, Any] = tokenizer.added_tokens_decoder
        self.special_tokens = sorted({token.content for token in added.values() if token.special})
        # Text that the vocabulary cannot spell becomes the unknown token, which marks nothing.
        unknown = getattr(tokenizer, "unk_token_id", None)
        self.special_ids = frozenset(index for index, token in added.items() if token.special) - {unknown}

    @property
    def base(self) -> str:
        """The base's folder, for messages."""
        return str(self.tokenizer.name_or_path)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text: nothing is added, and a special token spelled out in `text` is not parsed
        as one.
        """
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids`, special tokens left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def ids_of(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of `messages` and of the beginning of a reply. Special tokens are the template's: one that a turn spells is text."""
        hidden, marks = self._hidden(messages)
        return self._ids(self._text(hidden, reply=True), marks)

    def lesson(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """A chat as a model learns to answer in it: token ids, and which of them are taught.

        Taught are the turns of the assistant, each with the special token that ends it. What stands before an answer is what `ids_of`
        gives, so the first answer follows the very ids that it follows when the model is asked; later ones follow the earlier answers as
        they were taught. What comes after the last answer is left out. Raises SpartaError where there is no answer, or nothing before
        one, and where the chat template does not let an answer stand as it was given (leaves out, adds, or sets no token at its end).
        """
        turns = [at for at, message in enumerate(messages) if message.role == "assistant"]
        if not turns or turns[0] == 0:
            lack = "begins with a turn of the assistant" if turns else "has no turn of the assistant"
            raise SpartaError(
                f"a chat to learn from {lack}: leave out the one that begins {_beginning(messages)}"
            )
        hidden, marks = self._hidden(messages[: turns[-1] + 1])
        whole = self._text(hidden, reply=False)
        ids: list[int] = []
        taught: list[bool] = []
        place = 0
        for at in turns:
            prompt = self._text(hidden[:at], reply=True)
            # From the token that ended the answer before, so that what follows it is read as in a whole prompt.
            before = self._ids(whole[place : len(prompt)], marks)[1:] if ids else self.ids_of(messages[:at])
            said = _said(hidden[at].content, whole, len(prompt)) if whole.startswith(prompt) else None
            place = len(prompt) + len(said or "")
            ending = self._special_at(whole, place)
            if said is None or not ending:
                raise SpartaError(
                    f"the chat template of base {self.base} does not keep the answers of a chat as they are, each with a "
                    "special token at its end, so nothing can be learnt from it: use another base, or a tokenizer with a plain template, or "
                    f"leave out the chat that begins {_beginning(messages)}"
                )
            answer = self.encode(_shown(said, marks)) + self._ids(ending, {})
            ids += before + answer
            taught += [False] * len(before) + [True] * len(answer)
        return tuple(ids), tuple(taught)

    def check_roles(self, roles: Sequence[Role]) -> None:
        """Raises SpartaError, naming base and turn, where a prompt of turns with these roles would not hold them all."""
        turns = [Message(role, text) for role, text in probe(roles)]
        self._require_all(turns, self._text(turns, reply=True), roles)

    def _text(self, messages: Sequence[Message], reply: bool) -> str:
        """The text of `messages` in the chat template, `reply`: with the beginning of one. Raises SpartaError where it lacks one of them."""
        text = self._rendered(messages, [message.content for message in messages], reply)
        # What an assistant thought in an earlier turn, a template may leave out.
        self._require_all(messages, text, ("system", "user"))
        return text

    def _require_all(self, messages: Sequence[Message], text: str, roles: Sequence[Role]) -> None:
        """Raises SpartaError where a turn of `messages` that has one of the roles is not in `text`."""
        for number, message in enumerate(messages, start=1):
            if message.role in roles and message.content.strip() not in text:
                raise self._left_out(messages, number)

    def _rendered(self, messages: Sequence[Message], contents: Sequence[object], reply: bool) -> str:
        """What the template makes of turns with the roles of `messages` and these contents."""
        import jinja2

        turns = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=reply, tokenize=False, strftime_now=self._today
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
        except Exception as error:  # whatever the template does with what it is given
            raise SpartaError(
                f"the chat template of base {self.base} fails on {_named(messages)} ({type(error).__name__}: {error}): "
                "leave out such prompts, correct the template, or use another base"
            ) from error

    def _left_out(self, messages: Sequence[Message], number: int) -> SpartaError:
        """What is wrong where turn `number` of `messages`, from 1, is not in the prompt."""
        role, content = messages[number - 1].role, messages[number - 1].content
        where = f"the {role} turn, number {number} of {_named(messages)}"
        parts = [[{"type": "text", "text": message.content}] for message in messages]
        with suppress(SpartaError):
            if content.strip() in self._rendered(messages, parts, reply=True):
                return SpartaError(
                    f"the chat template of base {self.base} wants content as a list of parts, as those of vision models do, and leaves out {where}: "
                    "use the base's text-only sibling, or a template for text (chat_template.jinja in its folder)"
                )
        return SpartaError(
            f"the chat template of base {self.base} leaves out {where}: leave out such prompts (a system turn's text may lead the user's), or use "
            "another base"
        )

    def _today(self, form: str) -> str:
        """The day as `strftime` writes it: what templates call in place of the clock."""
        if self.options.today is None:
            raise SpartaError(
                f"the chat template of base {self.base} prints today's date, and there is no run here that it could be the "
                "date of: use a base whose template prints none"
            )
        return self.options.today.strftime(form)

    def _hidden(self, messages: Sequence[Message]) -> tuple[Sequence[Message], dict[str, str]]:
        """`messages` with one private character in the place of every special token that they spell, and the tokens by character."""
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

    def _ids(self, text: str, marks: Mapping[str, str]) -> tuple[int, ...]:
        """Token ids of text that the template made; what a mark stands for is text too."""
        ids: list[int] = []
        for piece in re.split(f"([{''.join(marks)}])", text) if marks else [text]:
            if piece in marks:
                ids += self.encode(marks[piece])
            elif piece:
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
        return tuple(ids)

    def _special_at(self, text: str, place: int) -> str:
        """The special token that begins at `place` of `text`, or nothing."""
        found = (token for token in self.special_tokens if token.strip() and text.startswith(token, place))
        return max(found, key=len, default="")


def _named(messages: Sequence[Message]) -> str:
    roles = [message.role for message in messages]
    tried = [(message.role, message.content) for message in messages] == probe(roles)
    beginning = "" if tried else f" that begins {_beginning(messages)}"
    return f"a prompt with the roles {', '.join(roles)}{beginning}"


def _beginning(messages: Sequence[Message]) -> str:
    return repr(messages[0].content[:60] if messages else "")


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
