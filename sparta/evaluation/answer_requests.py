"""Requests for answers to a task's items, and the answers from their completions (section 3: greedy, once)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sparta.chat.renderer import Prompt
from sparta.chat.thinking import SplitReply
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.errors import SpartaError
from sparta.recipes.schema import Recipe
from sparta.store.records import Answer, answer_key
from sparta.tasks.base import Item, Task


class PromptFormat(NamedTuple):
    """How a task's items are prompted. template: with the chat template, else as plain text. limit: new tokens; None if choices are scored by
    log-likelihood. grading: how answers are graded, if the recipe sets it; prompts and grades depend on it.
    """

    template: bool
    limit: int | None
    grading: str = ""

    def __str__(self) -> str:
        template = "chat" if self.template else "plain"
        limit = "likelihood" if self.limit is None else str(self.limit)
        return "-".join((template, limit, *filter(None, [self.grading])))


def prompt_format_of(recipe: Recipe, task: Task) -> PromptFormat:
    """The recipe's settings, or else the task's own."""
    evaluation = recipe.evaluation
    template = task.chat_template if evaluation.chat_template is None else evaluation.chat_template
    limit = None if task.likelihood else evaluation.max_new_tokens or task.max_new_tokens
    return PromptFormat(template, limit, task.grading)


@dataclass(frozen=True)
class EvalItem:
    """One item for one checkpoint to answer. model: the checkpoint's weights."""

    task: Task
    prompt_format: PromptFormat
    checkpoint: str
    model: ModelRef
    item: Item

    @property
    def key(self) -> str:
        return answer_key(self.task.name, self.checkpoint, self.item.item_id)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end the answer; none with a chat template, where the model ends it."""
        return () if self.prompt_format.template else self.task.stop


class _Pending(NamedTuple):
    """A request in flight. label: of the choice that it scores; None if it generates text."""

    item: EvalItem
    prompt: Prompt
    label: str | None


class AnswerRequests:
    """Turns evaluation items into requests, and completions into answers: one per generated text, or one per set of scored choices."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending: dict[str, _Pending] = {}
        self._scored: dict[str, dict[str, Completion]] = {}

    def requests(self, items: Iterable[EvalItem]) -> Iterator[Request]:
        """The requests, in the order of `items`. Raises SpartaError for an item whose choices cannot be scored."""
        for one in items:
            renderer, limit = self._engine.renderer(one.model), one.prompt_format.limit
            prompt = prompt_of(self._engine, one)
            if limit is None:
                yield from self._choice_requests(one, prompt)
            else:
                self._pending[one.key] = _Pending(one, prompt, None)
                sampling = _greedy(renderer.limit(prompt, limit), one.stop)
                yield Request(one.key, one.model, prompt, sampling, seed=0)

    def on_reply(self, done: Completion) -> Answer | None:
        """The answer that `done` completes; None while other choices of its item are pending."""
        item, prompt, label = self._pending.pop(done.key)
        if label is None:
            said = self._engine.renderer(item.model).split_reply(prompt, done.text)
            return _generated_answer(item, done, said)
        scored = self._scored.setdefault(item.key, {})
        scored[label] = done
        if len(scored) < len(item.item.choices):
            return None
        return _scored_answer(item, self._scored.pop(item.key))

    def _choice_requests(self, one: EvalItem, prompt: Prompt) -> Iterator[Request]:
        """One request for each choice."""
        choices = one.item.choices
        if not choices or not all(map(str.strip, choices.values())):
            raise SpartaError(
                f"the item {one.item.item_id} of {one.task.name} has no choices to score, or one without text: "
                "correct the data, or have its answers graded in another way"
            )
        renderer = self._engine.renderer(one.model)
        for number, (label, text) in enumerate(choices.items()):
            key = f"{one.key}/{number}"
            self._pending[key] = _Pending(one, prompt, label)
            # A template ends with a line break; plain text continues its last line.
            continuation = renderer.encode(text if one.prompt_format.template else f" {text}")
            # A choice is an answer, so an empty thought comes before it if the model may think.
            before = renderer.thought("", prompt.state)
            yield Request(
                key, one.model, prompt, _greedy(1), seed=0, prefix=before, continuation=continuation
            )


def prompt_of(engine: Engine, one: EvalItem) -> Prompt:
    """The prompt of `one`, with or without the chat template."""
    renderer = engine.renderer(one.model)
    if one.prompt_format.template:
        return renderer.combat(one.item.messages)
    return renderer.plain(one.task.plain(one.item))


def before_stop(text: str, stops: Sequence[str]) -> str:
    """`text` before the first of the stop strings."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _greedy(limit: int, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=limit, stop=stop)


def _generated_answer(one: EvalItem, done: Completion, said: SplitReply) -> Answer:
    """A generated answer with the task's own grades; without any if its prompt was too long or its thinking never ended."""
    text = before_stop(said.answer, one.stop)
    answered = said.ended and done.finish_reason != "prompt_too_long"
    return Answer(
        task=one.task.name,
        checkpoint=one.checkpoint,
        item_id=one.item.item_id,
        text=text,
        grades=one.task.grade(one.item, text) if answered else {},
        prompt_tokens=done.prompt_tokens,
        new_tokens=done.new_tokens,
        finish_reason=done.finish_reason,
        seconds=done.seconds,
        thinking=said.thinking,
        answered=said.ended,
    )


def _scored_answer(one: EvalItem, scored: dict[str, Completion]) -> Answer:
    """The answer from all scored choices; without grades if one of them does not fit after the prompt."""
    done = [scored[label] for label in one.item.choices]
    fits = all(completion.finish_reason != "prompt_too_long" for completion in done)
    logs = {label: scored[label].log_likelihood for label in one.item.choices} if fits else {}
    return Answer(
        task=one.task.name,
        checkpoint=one.checkpoint,
        item_id=one.item.item_id,
        text="",
        grades=one.task.score_likelihoods(one.item, logs) if fits else {},
        prompt_tokens=max(completion.prompt_tokens for completion in done),
        new_tokens=0,
        finish_reason="stop" if fits else "prompt_too_long",
        choice_logs=tuple(logs.values()),
        seconds=sum(completion.seconds for completion in done),
    )
