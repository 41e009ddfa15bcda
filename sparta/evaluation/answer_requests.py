"""Answers in the making: what checkpoints are asked on a task's items, and what comes of it (section 3: greedy, once)."""

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
    """How a task is asked. template: through the chat template, else as bare text. limit: new tokens; None where choices are weighed.

    grading: how answers are graded, where the recipe says that; what is asked, and what came of it, depend on it.
    """

    template: bool
    limit: int | None
    grading: str = ""

    def __str__(self) -> str:
        asked = "chat" if self.template else "plain"
        limit = "likelihood" if self.limit is None else str(self.limit)
        return "-".join((asked, limit, *filter(None, [self.grading])))


def prompt_format_of(recipe: Recipe, task: Task) -> PromptFormat:
    """The recipe's way where it says one, else the task's own."""
    evaluation = recipe.evaluation
    template = task.chat_template if evaluation.chat_template is None else evaluation.chat_template
    limit = None if task.likelihood else evaluation.max_new_tokens or task.max_new_tokens
    return PromptFormat(template, limit, task.grading)


@dataclass(frozen=True)
class EvalItem:
    """One item that one checkpoint is to answer. model: the checkpoint's weights."""

    task: Task
    way: PromptFormat
    checkpoint: str
    model: ModelRef
    item: Item

    @property
    def key(self) -> str:
        return answer_key(self.task.name, self.checkpoint, self.item.item_id)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end the answer; through a chat template a model ends it itself."""
        return () if self.way.template else self.task.stop


class _Awaited(NamedTuple):
    """What a request under way is for. label: of the choice that it weighs; None where a text is written."""

    exercise: EvalItem
    prompt: Prompt
    label: str | None


class AnswerRequests:
    """Turns exercises into requests and completions into answers: a text's when it is there, weighed choices' when all of them are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._awaited: dict[str, _Awaited] = {}
        self._weighed: dict[str, dict[str, Completion]] = {}

    def requests(self, exercises: Iterable[EvalItem]) -> Iterator[Request]:
        """What is asked, in the order of `exercises`. Raises SpartaError for an item whose choices cannot be weighed."""
        for exercise in exercises:
            renderer, item = self._engine.renderer(exercise.model), exercise.item
            plain = not exercise.way.template
            prompt = renderer.plain(exercise.task.plain(item)) if plain else renderer.combat(item.messages)
            if exercise.way.limit is None:
                yield from self._weighings(exercise, prompt)
            else:
                self._awaited[exercise.key] = _Awaited(exercise, prompt, None)
                sampling = _greedy(renderer.limit(prompt, exercise.way.limit), exercise.stop)
                yield Request(exercise.key, exercise.model, prompt, sampling, seed=0)

    def hear(self, done: Completion) -> Answer | None:
        """The answer that `done` completes; None where choices of its item are yet to be weighed."""
        exercise, prompt, label = self._awaited.pop(done.key)
        if label is None:
            said = self._engine.renderer(exercise.model).split_reply(prompt, done.text)
            return _written(exercise, done, said)
        weighed = self._weighed.setdefault(exercise.key, {})
        weighed[label] = done
        if len(weighed) < len(exercise.item.choices):
            return None
        return _weighed(exercise, self._weighed.pop(exercise.key))

    def _weighings(self, exercise: EvalItem, prompt: Prompt) -> Iterator[Request]:
        """One request for each choice."""
        choices = exercise.item.choices
        if not choices or not all(map(str.strip, choices.values())):
            raise SpartaError(
                f"the item {exercise.item.item_id} of {exercise.task.name} has no choices to weigh, or one without text: "
                "correct the data, or have its answers graded in another way"
            )
        renderer = self._engine.renderer(exercise.model)
        for number, (label, text) in enumerate(choices.items()):
            key = f"{exercise.key}/{number}"
            self._awaited[key] = _Awaited(exercise, prompt, label)
            # A template ends a line; bare text goes on in it.
            continuation = renderer.encode(text if exercise.way.template else f" {text}")
            # A choice is an answer: where a model may think before one, an empty thought stands.
            before = renderer.thought("", prompt.state)
            yield Request(
                key, exercise.model, prompt, _greedy(1), seed=0, prefix=before, continuation=continuation
            )


def before_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of the strings that end an answer."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _greedy(limit: int, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=limit, stop=stop)


def _written(exercise: EvalItem, done: Completion, said: SplitReply) -> Answer:
    """The answer that is a text, graded as far as a program can; what could not be asked, or thought without end, has no grades."""
    text = before_stop(said.answer, exercise.stop)
    asked = said.ended and done.finish_reason != "prompt_too_long"
    return Answer(
        task=exercise.task.name,
        checkpoint=exercise.checkpoint,
        item_id=exercise.item.item_id,
        text=text,
        grades=exercise.task.grade(exercise.item, text) if asked else {},
        prompt_tokens=done.prompt_tokens,
        new_tokens=done.new_tokens,
        finish_reason=done.finish_reason,
        seconds=done.seconds,
        thinking=said.thinking,
        answered=said.ended,
    )


def _weighed(exercise: EvalItem, weighed: dict[str, Completion]) -> Answer:
    """The answer that all choices come to; without grades where one of them does not fit behind the prompt."""
    done = [weighed[label] for label in exercise.item.choices]
    fits = all(one.finish_reason != "prompt_too_long" for one in done)
    logs = {label: weighed[label].log_likelihood for label in exercise.item.choices} if fits else {}
    return Answer(
        task=exercise.task.name,
        checkpoint=exercise.checkpoint,
        item_id=exercise.item.item_id,
        text="",
        grades=exercise.task.score_likelihoods(exercise.item, logs) if fits else {},
        prompt_tokens=max(one.prompt_tokens for one in done),
        new_tokens=0,
        finish_reason="stop" if fits else "prompt_too_long",
        choice_logs=tuple(logs.values()),
        seconds=sum(one.seconds for one in done),
    )
