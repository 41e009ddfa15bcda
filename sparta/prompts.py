"""The one renderer: combat, judging, DPO and evaluation turn messages into tokens here and nowhere else.

Two promises are kept here. What a model trains on is token for token what it saw and produced
(`Renderer.combat` renders the prompt of generation and of DPO alike; responses keep the ids that were
sampled). And a candidate's text can never leave its delimiters in a judge
prompt, nor push the instruction out of the context: it is neutralised, and cut where it is too long, counted.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Literal

from sparta.chat_template import ChatTemplate, Message
from sparta.errors import SpartaError


class PromptTooLong(SpartaError):
    """A judge prompt does not fit its context even without the response."""


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt.

    messages: what an endpoint that renders for itself receives.
    token_ids: what a local engine receives; None where there is no local tokenizer.
    cut: tokens of the candidate's text that were left out to fit the context (0 nearly always).
    """

    messages: tuple[Message, ...]
    token_ids: tuple[int, ...] | None
    cut: int = 0


JudgingMode = Literal["text", "expected"]

INTRODUCTION = "Judge how well the response answers the question."
TEXT = 'Give the response a score from 1 (worst) to 10 (best). Reply with JSON only: {"score": n}'
TEXT_AFTER_WORKING = (
    "First work out your own answer on one line. "
    'On the next line give the response a score from 1 (worst) to 10 (best) as JSON: {"score": n}'
)
EXPECTED = (
    "Give the response a score from {worst} (worst) to {best} (best). Reply with that one character only."
)
EXPECTED_AFTER_WORKING = (
    "First work out your own answer on one line. "
    "On the next line give the response a score from {worst} (worst) to {best} (best): "
    "that one character only."
)
GRADING = 'Give the response a score from 0 (worst) to 10 (best). Reply with JSON only: {"score": n}'

WORKING_PATTERN = r"[^\n]+\n"
"""A regular expression for the line that a judge writes before its score."""
_SCORE_PATTERN = r'\{"score": ?(?:10|[1-9])\}'
_GRADE_PATTERN = r'\{"score": ?(?:10|[0-9])\}'

JUDGING_DELIMITERS = ("question", "response")
GRADING_DELIMITERS = (*JUDGING_DELIMITERS, "reference")
"""What stands in angle brackets around the texts of a prompt. A judge prompt has no reference, so one in its texts is left as it is."""

_HIDDEN = (
    r"\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef"
)
_INVISIBLE = rf"[\s{_HIDDEN}]*"
"""Space, and characters that show as nothing: what somebody could put between the letters of a delimiter."""


def _spelled(word: str) -> str:
    return _INVISIBLE.join(map(re.escape, word))


@cache
def _delimiting(words: tuple[str, ...]) -> re.Pattern[str]:
    """What would read as the beginning or end of one of these delimiters."""
    spelled = "|".join(map(_spelled, words))
    return re.compile(rf"<{_INVISIBLE}(?:/{_INVISIBLE})*(?:{spelled})(?![\w-])[^<>\n]*>?", re.IGNORECASE)


_BAR, _SLASH = r"[|\uff5c]", rf"(?:/{_INVISIBLE})?"
_ROLE_MARKERS = re.compile(
    rf"<{_INVISIBLE}{_BAR}[^<>|\uff5c]{{1,48}}{_BAR}{_INVISIBLE}>"
    rf"|\[{_INVISIBLE}{_SLASH}{_spelled('INST')}{_INVISIBLE}\]"
    rf"|<{_INVISIBLE}<{_INVISIBLE}{_SLASH}{_spelled('SYS')}{_INVISIBLE}>{_INVISIBLE}>"
    rf"|<{_INVISIBLE}(?:{_spelled('start_of_turn')}|{_spelled('end_of_turn')}){_INVISIBLE}>"
    rf"|<[{_HIDDEN}]*(?:/[{_HIDDEN}]*)?s[{_HIDDEN}]*>"
    # Any word in capitals: [SYSTEM_PROMPT], [TOOL_CALLS]. A [NOTE] loses its brackets too, which says the same to a judge.
    rf"|\[{_INVISIBLE}{_SLASH}(?-i:[A-Z](?:[{_HIDDEN}]*[A-Z_]){{2,}}){_INVISIBLE}\]",
    re.IGNORECASE,
)
_ROUND = str.maketrans("<>[]", "()()")


def neutralise(
    text: str, special_tokens: Sequence[str] = (), delimiters: tuple[str, ...] = JUDGING_DELIMITERS
) -> str:
    """`text` with every delimiter, role marker and special token turned into plain words.

    Angle and square brackets of a match become round ones (`</response>` reads `(/response)`); a special
    token without brackets is split by a space, one of a single character is left out. Nothing in the result
    is one of `delimiters` or of `special_tokens`.
    """
    exact = [re.escape(token) for token in sorted(special_tokens, key=len, reverse=True) if token.strip()]
    patterns = [_delimiting(delimiters), _ROLE_MARKERS, *([re.compile("|".join(exact))] if exact else [])]
    while True:
        before = text
        for pattern in patterns:
            text = pattern.sub(_plain, text)
        if text == before:
            return text


def _plain(match: re.Match[str]) -> str:
    words = match[0].translate(_ROUND)
    if words != match[0]:
        return words
    core = words.strip()
    return words.replace(core, f"{core[0]} {core[1:]}" if len(core) > 1 else "")


def judging_instruction(mode: JudgingMode, working: bool, labels: Sequence[str]) -> str:
    """The closing instruction of a judge prompt; `labels` (worst first) matter for `expected` alone."""
    if mode == "text":
        return TEXT_AFTER_WORKING if working else TEXT
    return (EXPECTED_AFTER_WORKING if working else EXPECTED).format(worst=labels[0], best=labels[-1])


def judging_pattern(working: bool) -> str:
    """A regular expression for what `text` asks a judge to write."""
    return (WORKING_PATTERN if working else "") + _SCORE_PATTERN


def grading_pattern() -> str:
    """A regular expression for what `GRADING` asks a judge to write."""
    return _GRADE_PATTERN


def question_text(messages: Sequence[Message]) -> str:
    """The question as a judge reads it: the one user turn alone, or all turns with their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def judge_content(question: str, response: str, instruction: str) -> str:
    """The text of a judge prompt: introduction, question, response, instruction, in that order.

    What all prompts share comes first, what one judge's two votes on a combat share comes next: prefix caches
    work from the left.
    """
    return _Case(INTRODUCTION, question, None, instruction, JUDGING_DELIMITERS).content(response)


@dataclass(frozen=True)
class _Case:
    """All that a judge is told, except for the response. delimiters: those that no text of the prompt may hold."""

    introduction: str
    question: str
    reference: str | None
    instruction: str
    delimiters: tuple[str, ...]

    def content(self, response: str) -> str:
        reference = () if self.reference is None else (("reference", self.reference),)
        texts = (("question", self.question), *reference, ("response", response))
        blocks = (f"<{name}>\n{text}\n</{name}>" for name, text in texts)
        return "\n".join((self.introduction, *blocks, self.instruction))

    def changed(self, change: Callable[[str], str]) -> "_Case":
        """The same with another question and reference; introduction and instruction are ours."""
        reference = None if self.reference is None else change(self.reference)
        return replace(self, question=change(self.question), reference=reference)


class Renderer(ChatTemplate):
    """Renders prompts for one tokenizer (any transformers tokenizer with a chat template) and one context
    length.

    context_length: tokens, prompt and completion together.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        super().__init__(tokenizer)
        self.context_length = context_length

    def completion(self, text: str, finished: bool) -> tuple[int, ...]:
        """Token ids of a response that another tokenizer produced, with the end-of-sequence token if it ended
        by itself.
        """
        return self.encode(text) + ((int(self.tokenizer.eos_token_id),) if finished else ())

    def combat(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that a contestant answers, in generation, in DPO and in evaluation. May be longer than
        the context: see `room`.
        """
        return Prompt(tuple(messages), self.ids_of(messages))

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
        case = _Case(INTRODUCTION, question_text(messages), None, instruction, JUDGING_DELIMITERS)
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
        case = _Case(introduction, question_text(question), reference, instruction, GRADING_DELIMITERS)
        return self._judged(case, answer, max_new_tokens)

    def _judged(self, case: _Case, response: str, max_new_tokens: int) -> Prompt:
        neutral = partial(neutralise, special_tokens=self.special_tokens, delimiters=case.delimiters)
        case, response = case.changed(neutral), neutral(response)
        limit = self.context_length - max_new_tokens
        turn, token_ids = self._judge_turn(case, response)
        if len(token_ids) <= limit:
            return Prompt((turn,), token_ids)
        whole = self.encode(response)
        keep = len(whole)
        while keep > 0:
            keep = max(0, keep - (len(token_ids) - limit))
            # A cut inside a character leaves the mark of an unreadable one behind.
            kept = neutral(self.decode(whole[:keep]).rstrip("\ufffd"))
            turn, token_ids = self._judge_turn(case, kept)
            if len(token_ids) <= limit:
                return Prompt((turn,), token_ids, cut=len(whole) - keep)
        raise PromptTooLong(
            f"a judge prompt without its response has more than {limit} tokens, which leaves no room in a "
            f"context of {self.context_length}: raise the judge's engine.context_length or leave out the prompt that "
            f"begins {case.question[:60]!r}"
        )

    def _judge_turn(self, case: _Case, response: str) -> tuple[Message, tuple[int, ...]]:
        """The turn of a judge prompt and its ids, which hold the special tokens of the template and no other.

        A tokenizer may normalise text before it looks for special tokens (wide brackets become plain ones,
        say), so the ids are checked; where there is one too many, the texts are normalised in the same manner
        and neutralised again.
        """

        def folded(text: str) -> str:
            return neutralise(unicodedata.normalize("NFKC", text), self.special_tokens, case.delimiters)

        for fold in (False, True):
            if fold:
                case, response = case.changed(folded), folded(response)
            turn = Message("user", case.content(response))
            token_ids = self.ids_of([turn])
            if self._specials(token_ids) == self._frame:
                return turn, token_ids
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
    """Renders for an endpoint, which has the tokenizer: prompts are messages, nothing is cut or counted in tokens."""

    def __init__(self) -> None:
        self.tokenizer = None
        self.context_length = sys.maxsize
        self.special_tokens = []
        self.special_ids = frozenset()

    def combat(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(tuple(messages), None)

    def plain(self, messages: Sequence[Message]) -> Prompt:
        raise SpartaError(
            "an endpoint puts every prompt into its model's chat template: set evaluation.chat_template to true"
        )

    def _judged(self, case: _Case, response: str, max_new_tokens: int) -> Prompt:
        """Nothing is cut, and special tokens are not known here: delimiters and role markers alone are neutralised."""
        neutral = partial(neutralise, delimiters=case.delimiters)
        return Prompt((Message("user", case.changed(neutral).content(neutral(response))),), None)

    def room(self, prompt: Prompt) -> int:
        """No limit that is known here."""
        return self.context_length

    def encode(self, text: str) -> tuple[int, ...]:
        raise TypeError("there is no tokenizer: the endpoint has it")

    def decode(self, token_ids: Sequence[int]) -> str:
        raise TypeError("there is no tokenizer: the endpoint has it")
