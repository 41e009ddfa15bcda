"""The one renderer: combat, judging, DPO and evaluation turn messages into tokens here and nowhere else.

Two promises are kept here. What a model trains on is token for token what it saw and produced
(`Renderer.combat` renders the prompt of generation and of DPO alike; responses keep the ids that were
sampled). And a candidate's text can never leave its delimiters in a judge
prompt, nor push the instruction out of the context: it is neutralised, and cut where it is too long, counted.
"""

import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from sparta.chat.judge_prompts import INTRODUCTION, JudgingCase, judge_content, question_text
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

    messages: what an endpoint that renders for itself receives.
    token_ids: what a local engine receives; None where there is no local tokenizer.
    cut: tokens of the candidate's text that were left out to fit the context (0 nearly always).
    state: how it leaves it to the model to think.
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
    """Renders prompts for one tokenizer (any transformers tokenizer with a chat template) and one context
    length.

    context_length: tokens, prompt and completion together.
    """

    def __init__(self, tokenizer: Any, context_length: int, options: ChatOptions = UNDATED) -> None:
        super().__init__(tokenizer, options)
        self.context_length = context_length

    def completion(
        self, text: str, finished: bool, thinking: str = "", state: State = "none"
    ) -> tuple[int, ...]:
        """Token ids of a response that another tokenizer produced, with the end-of-sequence token if it ended
        by itself; behind a prompt in `state`, see `reply`.
        """
        ids = self.reply(thinking, text, state)
        return ids + ((int(self.tokenizer.eos_token_id),) if finished else ())

    def limit(self, prompt: Prompt, new_tokens: int) -> int:
        """What a completion may have whose answer may have `new_tokens`: more where the model may think first."""
        return new_tokens + (self.options.thinking_tokens if prompt.invites_thinking else 0)

    def split_reply(self, prompt: Prompt, text: str) -> SplitReply:
        """What a model `written` behind `prompt`: thinking and answer."""
        return split(text, self.tags, prompt.state == "opened")

    def up_to_answer(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[int, ...]:
        """What stands before the answer in `token_ids`, sampled behind `prompt`: the thinking, its tags, space; nothing where nothing was thought.

        These very ids, unless a token holds the end of a tag and the beginning of the answer.
        """

        def answer(count: int) -> str | None:
            """What the first tokens answer; None before an answer can begin."""
            text = self.written(token_ids[:count])
            said = self.split_reply(prompt, text)
            return said.answer if said.ended and len(said.answer) < len(text) else None

        if answer(len(token_ids)) is None:
            return ()
        count = bisect_left(range(len(token_ids)), True, key=lambda count: answer(count) is not None)
        if begun := answer(count):
            return self.ids(self.written(token_ids[:count]).removesuffix(begun), {})
        while count < len(token_ids) and token_ids[count] not in self.special_ids and answer(count + 1) == "":
            count += 1
        return tuple(token_ids[:count])

    def combat(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that a contestant answers, in generation, in DPO and in evaluation. May be longer than
        the context: see `room`.
        """
        token_ids, state = self.prompt_of(messages)
        return Prompt(tuple(messages), token_ids, state=state)

    def plain(self, messages: Sequence[Message]) -> Prompt:
        """The bare text of the turns, a blank line between them, to be continued: no chat template, no roles, and of special tokens the
        tokenizer's own beginning of a sequence alone. Raises SpartaError for a prompt without any token.
        """
        token_ids = self._opening + self.encode("\n\n".join(message.content for message in messages))
        if not token_ids:
            raise SpartaError(
                "a prompt is empty, and without the chat template nothing is left of it: leave out the item, or set "
                "evaluation.chat_template to true"
            )
        return Prompt(tuple(messages), token_ids)

    @cached_property
    def _opening(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text: mostly a token for the beginning of a sequence, or nothing; never what it puts after one."""
        text = self.encode("a")
        framed = tuple(self.tokenizer.encode("a", add_special_tokens=True, split_special_tokens=True))
        for at in range(len(framed)):
            if framed[at : at + len(text)] == text:
                return framed[:at]
        raise SpartaError(
            "the tokenizer reads a text otherwise where it adds its special tokens, so a prompt without the chat template cannot be made: set "
            "evaluation.chat_template to true"
        )

    def judging(
        self, messages: Sequence[Message], response: str, *, instruction: str, max_new_tokens: int
    ) -> Prompt:
        """The prompt that a judge answers (Appendix D of the paper, our wording).

        The response is neutralised, and where the whole would not leave `max_new_tokens` of the context, its
        end is cut; the tokens left out are counted in `Prompt.cut`. Raises PromptTooLong where not even an
        empty response fits.
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
        """The prompt that the judge of an evaluation answers: introduction (what is judged, and by what), question, reference if
        there is one, answer, instruction.

        As in `judging`, what is not ours is neutralised, the reference too, and an answer that is too long is cut.
        """
        case = JudgingCase(introduction, question_text(question), reference, instruction, GRADING_DELIMITERS)
        return self._judged(case, answer, max_new_tokens)

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
            # A cut inside a character leaves the mark of an unreadable one behind.
            kept = neutral(self.decode(whole[:keep]).rstrip("\ufffd"))
            prompt = self._judge_prompt(case, kept)
            if len(prompt.token_ids or ()) <= limit:
                return replace(prompt, cut=len(whole) - keep)
        raise PromptTooLong(
            f"a judge prompt without its response has more than {limit} tokens, which leaves no room in a "
            f"context of {self.context_length}: raise the judge's engine.context_length or leave out the prompt that "
            f"begins {case.question[:60]!r}"
        )

    @cached_property
    def _guarded(self) -> list[str]:
        """What no text of a judge prompt may spell: special tokens, and the tags of thinking."""
        tags = [self.tags.open, self.tags.close] if self.tags else []
        return [*self.special_tokens, *tags]

    def _judge_prompt(self, case: JudgingCase, response: str) -> Prompt:
        """A judge prompt whose ids hold the special tokens of the template and no other.

        A tokenizer may normalise text before it looks for special tokens (wide brackets become plain ones,
        say), so the ids are checked; where there is one too many, the texts are normalised in the same manner
        and neutralised again.
        """

        def folded(text: str) -> str:
            return neutralise(unicodedata.normalize("NFKC", text), self._guarded, case.delimiters)

        for fold in (False, True):
            if fold:
                case, response = case.changed(folded), folded(response)
            turn = Message("user", case.content(response))
            token_ids, state = self.prompt_of([turn])
            if self._specials(token_ids) == self._frame:
                return Prompt((turn,), token_ids, state=state)
        raise SpartaError(
            "the tokenizer finds special tokens in a judge prompt that its text does not spell: leave out "
            f"the prompt that begins {case.question[:60]!r}, or use a base with another tokenizer"
        )

    @cached_property
    def _frame(self) -> tuple[int, ...]:
        return self._specials(self.ids_of([Message("user", judge_content("", "", ""))]))

    def _specials(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for token in token_ids if token in self.special_ids)

    def room(self, prompt: Prompt) -> int:
        """Tokens that the context leaves after `prompt`; not positive where the prompt alone fills it."""
        return self.context_length - len(prompt.token_ids or ())


class EndpointRenderer(Renderer):
    """Renders for an endpoint, which has the tokenizer: prompts are messages, nothing is cut or counted in tokens.

    local: of the same base, where it lies here and its chat template knows of thinking.
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
            "an endpoint puts every prompt into its model's chat template: set evaluation.chat_template to true"
        )

    def _judged(self, case: JudgingCase, response: str, max_new_tokens: int) -> Prompt:
        """Nothing is cut, and special tokens are not known here: delimiters, role markers and tags of thinking alone are neutralised."""
        neutral = partial(neutralise, special_tokens=self._guarded, delimiters=case.delimiters)
        turn = Message("user", case.changed(neutral).content(neutral(response)))
        return Prompt((turn,), None, state=self._state_of([turn]))

    def _state_of(self, messages: Sequence[Message]) -> State:
        if self._local is not None:
            return self._local.prompt_of(messages)[1]
        return "free" if self.has_thinking else "none"

    def thought(self, thinking: str, state: State) -> tuple[int, ...]:
        """Nothing: an endpoint goes on from nothing."""
        return ()

    def room(self, prompt: Prompt) -> int:
        """No limit that is known here."""
        return self.context_length

    def encode(self, text: str) -> tuple[int, ...]:
        raise TypeError("there is no tokenizer: the endpoint has it")

    def decode(self, token_ids: Sequence[int]) -> str:
        raise TypeError("there is no tokenizer: the endpoint has it")
