"""The only renderer: combat, judging, DPO and evaluation all turn messages into tokens here.

It guarantees two things. First, a model trains on exactly the tokens that it read and produced: `Renderer.combat` renders the prompts
of both generation and DPO, and responses keep the ids that were sampled. Second, a candidate's text can neither break out of its
delimiters in a judge prompt nor push the instruction out of the context: it is neutralised, and truncated if it is too long (the number
of truncated tokens is recorded).
"""

import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from sparta.chat.judge_prompts import (
    INTRODUCTION,
    SET_GRADING,
    SET_INTRODUCTION,
    JudgingCase,
    judge_content,
    question_text,
)
from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.sanitize import GRADING_DELIMITERS, JUDGING_DELIMITERS, neutralise
from sparta.chat.template import ChatTemplate, Message
from sparta.chat.thinking import THINK, SplitReply, State, Tags, split
from sparta.errors import SpartaError


class PromptTooLong(SpartaError):
    """A judge prompt does not fit its context even without the response."""


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    messages: the input of an endpoint, which does its own rendering.
    token_ids: the input of a local engine; None if there is no local tokenizer.
    cut: tokens of the candidate's text that were truncated to fit the context (almost always 0).
    state: whether and how the model may think, see `State`.
    """

    messages: tuple[Message, ...]
    token_ids: tuple[int, ...] | None
    cut: int = 0
    state: State = "none"

    @property
    def invites_thinking(self) -> bool:
        """Whether the model may think before it answers."""
        return self.state in ("free", "opened")


class Renderer(ChatTemplate):
    """Renders prompts for one tokenizer (any transformers tokenizer with a chat template) and one context length.

    context_length: tokens, prompt and completion together.
    """

    def __init__(self, tokenizer: Any, context_length: int, options: ChatOptions = UNDATED) -> None:
        super().__init__(tokenizer, options)
        self.context_length = context_length

    def completion(
        self, text: str, finished: bool, thinking: str = "", state: State = "none"
    ) -> tuple[int, ...]:
        """Token ids of a response that was produced with another tokenizer, with the end-of-sequence token if `finished`.

        state: of the prompt before it, see `reply`.
        """
        ids = self.reply(thinking, text, state)
        return ids + ((int(self.tokenizer.eos_token_id),) if finished else ())

    def limit(self, prompt: Prompt, new_tokens: int) -> int:
        """Maximum tokens of a completion whose answer may have `new_tokens`: more if the model may think first."""
        return new_tokens + (self.options.thinking_tokens if prompt.invites_thinking else 0)

    def split_reply(self, prompt: Prompt, text: str) -> SplitReply:
        """Thinking and answer of the `text` that a model wrote after `prompt`."""
        return split(text, self.tags, prompt.state == "opened")

    def up_to_answer(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The part of `token_ids` (sampled after `prompt`) before the answer: thinking, tags and white space; empty without thinking.

        The sampled ids are kept, unless one token holds both the end of a tag and the beginning of the answer.
        """

        def answer(count: int) -> str | None:
            """The answer in the first `count` tokens; None if they end before the answer begins."""
            text = self.written(token_ids[:count])
            reply = self.split_reply(prompt, text)
            return reply.answer if reply.ended and len(reply.answer) < len(text) else None

        if answer(len(token_ids)) is None:
            return ()
        count = bisect_left(range(len(token_ids)), True, key=lambda count: answer(count) is not None)
        if begun := answer(count):
            return self.ids(self.written(token_ids[:count]).removesuffix(begun), {})
        while count < len(token_ids) and token_ids[count] not in self.special_ids and answer(count + 1) == "":
            count += 1
        return tuple(token_ids[:count])

    def combat(self, messages: Sequence[Message]) -> Prompt:
        """The prompt for a contestant, in generation, DPO and evaluation. It may be longer than the context: see `room`."""
        token_ids, state = self.prompt_of(messages)
        return Prompt(tuple(messages), token_ids, state=state)

    def plain(self, messages: Sequence[Message]) -> Prompt:
        """The text of the turns, separated by blank lines, for the model to continue: without chat template and roles.

        The only special token is the tokenizer's beginning-of-sequence token, if it has one. Raises SpartaError for a prompt without tokens.
        """
        token_ids = self._opening + self.encode("\n\n".join(message.content for message in messages))
        if not token_ids:
            raise SpartaError(
                "a prompt is empty, and without the chat template it has no tokens: leave out the item, or set "
                "evaluation.chat_template to true"
            )
        return Prompt(tuple(messages), token_ids)

    @cached_property
    def _opening(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before a text: usually a beginning-of-sequence token, or none."""
        text = self.encode("a")
        framed = tuple(self.tokenizer.encode("a", add_special_tokens=True, split_special_tokens=True))
        for at in range(len(framed)):
            if framed[at : at + len(text)] == text:
                return framed[:at]
        raise SpartaError(
            "the tokenizer encodes a text differently when it adds its special tokens, so prompts without the chat template are not possible: set "
            "evaluation.chat_template to true"
        )

    def judging(
        self, messages: Sequence[Message], response: str, *, instruction: str, max_new_tokens: int
    ) -> Prompt:
        """The prompt for a judge (Appendix D of the paper, our wording).

        The response is neutralised. If the prompt does not leave `max_new_tokens` of the context, the end of the response is truncated;
        `Prompt.cut` counts the truncated tokens. Raises PromptTooLong if not even an empty response fits.
        """
        case = JudgingCase(INTRODUCTION, question_text(messages), None, instruction, JUDGING_DELIMITERS)
        return self._judged(case, response, max_new_tokens)

    def grading(
        self,
        introduction: str,
        question: Sequence[Message],
        reference: str | None,
        answer: str,
        instruction: str,
        max_new_tokens: int,
    ) -> Prompt:
        """The prompt for the judge of an evaluation: introduction (what to judge, and by which criteria), question, reference if there is
        one, answer, instruction.

        As in `judging`, question, reference and answer are neutralised, and an answer that is too long is truncated.
        """
        case = JudgingCase(introduction, question_text(question), reference, instruction, GRADING_DELIMITERS)
        return self._judged(case, answer, max_new_tokens)

    def grading_set(
        self, question: Sequence[Message], responses: Sequence[str], max_new_tokens: int
    ) -> Prompt:
        """The prompt for the judge of a set of responses to one question (Appendix C.8, our wording).

        All texts are neutralised. Nothing is truncated: raises PromptTooLong if the set does not leave `max_new_tokens` of the context.
        """
        delimiters = JUDGING_DELIMITERS
        case = JudgingCase(SET_INTRODUCTION, question_text(question), None, SET_GRADING, delimiters)
        neutral = partial(neutralise, special_tokens=self._guarded, delimiters=delimiters)
        prompt = self._judge_prompt(case.changed(neutral), *map(neutral, responses))
        if len(prompt.token_ids or ()) > self.context_length - self.limit(prompt, max_new_tokens):
            raise PromptTooLong(
                f"{len(responses)} responses to the prompt that begins {case.question[:60]!r} do not fit a context of {self.context_length} "
                "together: raise the judge's engine.context_length"
            )
        return prompt

    def _judged(self, case: JudgingCase, response: str, max_new_tokens: int) -> Prompt:
        neutral = partial(neutralise, special_tokens=self._guarded, delimiters=case.delimiters)
        case, response = case.changed(neutral), neutral(response)
        prompt = self._judge_prompt(case, response)
        limit = self.context_length - self.limit(prompt, max_new_tokens)
        if len(prompt.token_ids or ()) <= limit:
            return prompt
        whole = self.encode(response)
        keep = len(whole)
        while keep > 0:
            keep = max(0, keep - (len(prompt.token_ids or ()) - limit))
            # A cut inside a character leaves a replacement character behind.
            kept = neutral(self.decode(whole[:keep]).rstrip("\ufffd"))
            prompt = self._judge_prompt(case, kept)
            if len(prompt.token_ids or ()) <= limit:
                return replace(prompt, cut=len(whole) - keep)
        raise PromptTooLong(
            f"a judge prompt has more than {limit} tokens even without the response, which leaves no room in a "
            f"context of {self.context_length}: raise the judge's engine.context_length or leave out the prompt that "
            f"begins {case.question[:60]!r}"
        )

    @cached_property
    def _guarded(self) -> list[str]:
        """Strings that no text of a judge prompt may contain: special tokens and thinking tags."""
        tags = [self.tags.open, self.tags.close] if self.tags else []
        return [*self.special_tokens, *tags]

    def _judge_prompt(self, case: JudgingCase, *responses: str) -> Prompt:
        """A judge prompt whose ids contain the special tokens of the template and no others.

        A tokenizer may normalise text before it looks for special tokens (for example, full-width brackets become plain ones), so the ids
        are checked. If they contain a special token too many, the texts are normalised in the same way and neutralised again.
        """

        def normalised(text: str) -> str:
            return neutralise(unicodedata.normalize("NFKC", text), self._guarded, case.delimiters)

        for normalise in (False, True):
            if normalise:
                case, responses = case.changed(normalised), tuple(map(normalised, responses))
            turn = Message("user", case.content(*responses))
            token_ids, state = self.prompt_of([turn])
            if self._specials(token_ids) == self._frame:
                return Prompt((turn,), token_ids, state=state)
        raise SpartaError(
            "the tokenizer produces special tokens in a judge prompt whose text does not contain them: leave out "
            f"the prompt that begins {case.question[:60]!r}, or use a base with another tokenizer"
        )

    @cached_property
    def _frame(self) -> tuple[int, ...]:
        return self._specials(self.ids_of([Message("user", judge_content("", "", ""))]))

    def _specials(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for token in token_ids if token in self.special_ids)

    def room(self, prompt: Prompt) -> int:
        """Tokens that the context leaves after `prompt`; zero or negative if the prompt alone fills it."""
        return self.context_length - len(prompt.token_ids or ())


class EndpointRenderer(Renderer):
    """Renders for an endpoint that does the tokenization: prompts are messages, and nothing is truncated or counted in tokens.

    local: a local renderer of the same base, if the base is available here and its chat template has thinking.
    """

    def __init__(self, options: ChatOptions = UNDATED, local: Renderer | None = None) -> None:
        self.tokenizer, self.options = None, options
        self.context_length = sys.maxsize
        self.special_tokens = []
        self.special_ids = frozenset()
        self._added = {}
        self._local = local

    @cached_property
    def tags(self) -> Tags | None:
        if self._local is not None:
            return self._local.tags
        given = self.options.thinking
        return given if isinstance(given, Tags) else THINK if given == "auto" else None

    @property
    def has_thinking(self) -> bool:
        return self._local is not None or isinstance(self.options.thinking, Tags)

    def combat(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(tuple(messages), None, state=self._state_of(messages))

    def plain(self, messages: Sequence[Message]) -> Prompt:
        raise SpartaError(
            "an endpoint applies its model's chat template to every prompt: set evaluation.chat_template to true"
        )

    def _judge_prompt(self, case: JudgingCase, *responses: str) -> Prompt:
        """Without token ids, so nothing is ever truncated. Special tokens are unknown here; delimiters, role markers and thinking tags are neutralised."""
        turn = Message("user", case.content(*responses))
        return Prompt((turn,), None, state=self._state_of([turn]))

    def _state_of(self, messages: Sequence[Message]) -> State:
        if self._local is not None:
            return self._local.prompt_of(messages)[1]
        return "free" if self.has_thinking else "none"

    def thought(self, thinking: str, state: State) -> tuple[int, ...]:
        """Empty: an endpoint cannot continue a partial reply."""
        return ()

    def room(self, prompt: Prompt) -> int:
        """No limit: the endpoint's context length is unknown here."""
        return self.context_length

    def encode(self, text: str) -> tuple[int, ...]:
        raise TypeError("there is no tokenizer: the endpoint has it")

    def decode(self, token_ids: Sequence[int]) -> str:
        raise TypeError("there is no tokenizer: the endpoint has it")
