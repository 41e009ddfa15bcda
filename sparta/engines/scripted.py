"""An engine without a model: answers and votes derived from seeds, for dry runs and for fault tests.

Every model has a skill, derived from its name and, slightly, from its version. Answers state their quality, which varies
around the skill of their model; judges read the quality back with an error that is larger for less skilled judges. So
reputations move as they would with real models. If a prompt invites thinking, models think first, for different lengths.
"""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparta import rng
from sparta.chat import judge_prompts
from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.engines.base import Completion, Inbox, ModelRef, Request
from sparta.recipes import engine as recipe_engine
from sparta.store.records import FinishReason

_QUALITY = re.compile(r"quality (\d+\.\d+)")
_UNREADABLE = "I would rather not say."


class ScriptedEngine:
    """See `sparta.engines.base.Engine`. A completion depends only on its request."""

    def __init__(self, settings: recipe_engine.EngineSettings, chat: ChatOptions = UNDATED) -> None:
        self.settings = settings
        self.loads = 0
        self.load_seconds = 0.0
        self._renderer = Renderer(ByteTokenizer(), settings.context_length, chat)

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Every model is accepted."""

    def renderer(self, model: ModelRef) -> Renderer:
        return self._renderer

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        return "scripted-bytes"

    def run(self, requests: Inbox) -> Iterator[Completion]:
        self.loads = 1
        while taken := requests.take(1):
            [request] = taken
            began = time.perf_counter()
            if self.settings.scripted.delay:
                time.sleep(self.settings.scripted.delay)
            yield self._complete(request, began)

    def close(self) -> None:
        """There is nothing to free."""

    def _complete(self, request: Request, began: float) -> Completion:
        prompt_tokens = len(request.prompt.token_ids or ())
        room = self._renderer.room(request.prompt) - len(request.prefix) - len(request.continuation)
        if room < (0 if request.labels or request.continuation else 1):
            return Completion(
                request.key, "", (), prompt_tokens, "prompt_too_long", time.perf_counter() - began
            )
        if request.continuation:
            nats = rng.stream(*_name(request), "likelihood", *request.continuation).uniform(0.5, 4.0)
            return Completion(
                request.key,
                "",
                (),
                prompt_tokens,
                "stop",
                time.perf_counter() - began,
                log_likelihood=-nats * len(request.continuation),
            )
        if request.labels:
            shares = self._label_shares(request)
            return Completion(request.key, "", (), prompt_tokens, "stop", time.perf_counter() - began, shares)
        text = _up_to_stop(self._thought(request) + self._text(request), request.sampling.stop)
        ends = not any(stop in text for stop in request.sampling.stop)
        token_ids = (*self._renderer.encode(text), *((ByteTokenizer.END,) if ends else ()))
        limit = min(room, request.sampling.max_new_tokens)
        reason: FinishReason = "stop" if len(token_ids) <= limit else "length"
        token_ids = token_ids[:limit]
        text = self._renderer.decode(token_ids)
        return Completion(request.key, text, token_ids, prompt_tokens, reason, time.perf_counter() - began)

    def _thought(self, request: Request) -> str:
        """The model's thinking: it contains what would parse as a vote or an answer, to show that thinking is not parsed. "" after a prefix."""
        tags = self._renderer.tags
        if tags is None or request.prefix or not request.prompt.invites_thinking:
            return ""
        steps = rng.stream(*_name(request), "thought").randrange(20)
        return tags.thought("hm, " * steps + "quality 9.99, score: 10/10?", request.prompt.state == "opened")

    def _text(self, request: Request) -> str:
        if request.prompt.messages[-1].content.endswith(judge_prompts.COMPARING):
            return self._comparison(request)
        if not _judges(request):
            question = request.prompt.messages[-1].content
            if rng.stream("scripted", "equal", question).random() < self.settings.scripted.equal:
                return f"scripted answer {rng.seed_of('scripted', question):016x}, quality 5.50"
            quality = _bounded(rng.stream(*_name(request), "answer").gauss(skill(request.model), 1.0))
            return f"scripted answer {rng.seed_of(*_name(request)):016x}, quality {quality:.2f}"
        prompt = request.prompt.messages[-1].content
        written = self._renderer.split_reply(request.prompt, self._renderer.decode(request.prefix)).answer
        reasoning = "" if written or "First work out" not in prompt else "scripted working\n"
        return reasoning + self._verdict(request, prompt, written)

    def _comparison(self, request: Request) -> str:
        """A random choice between two judgements."""
        chance = rng.stream(*_name(request), "comparison")
        if chance.random() < self.settings.scripted.unreadable.get(request.model.name, 0.0):
            return _UNREADABLE
        return json.dumps({"better": chance.choice((1, 2))})

    def _verdict(self, request: Request, prompt: str, written: str) -> str:
        share = self.settings.scripted.unreadable.get(request.model.name, 0.0)
        if rng.stream(*_name(request), "unreadable").random() < share:
            return _UNREADABLE
        score = _perceived(request)
        if prompt.endswith(judge_prompts.PAPERS_GRADING):
            return repr({"score": round(score)})
        if '{"score"' not in prompt:
            return str(round((score - 1) / 9 * 9))
        if written.rstrip().endswith('{"score":'):
            return f"{round(score)}}}"
        return json.dumps({"score": round(score)})

    def _label_shares(self, request: Request) -> tuple[float, ...]:
        centre = (_perceived(request) - 1) / 9 * (len(request.labels) - 1)
        weights = [math.exp(-((index - centre) ** 2)) for index in range(len(request.labels))]
        return tuple(weight / sum(weights) for weight in weights)


def skill(model: ModelRef) -> float:
    """The mean quality of the answers of `model`, in score points: 3 to 8 by name, plus or minus up to half a point by version."""
    by_name = rng.stream("scripted", "skill", model.name).uniform(3.0, 8.0)
    return by_name + rng.stream("scripted", "skill", model.name, model.version).uniform(-0.5, 0.5)


def _perceived(request: Request) -> float:
    """The quality that a judge sees in the response that it judges, in score points."""
    stated = _QUALITY.findall(request.prompt.messages[-1].content)
    quality = float(stated[-1]) if stated else 5.5
    error = 0.5 + (8.5 - skill(request.model)) / 4
    return _bounded(rng.stream(*_name(request), "vote").gauss(quality, error))


def _name(request: Request) -> tuple[int | str, ...]:
    return "scripted", request.seed, request.key, request.model.name, request.model.version


def _judges(request: Request) -> bool:
    content = request.prompt.messages[-1].content
    asked_to_score = (*judge_prompts.GRADINGS, judge_prompts.SET_GRADING)
    return judge_prompts.INTRODUCTION in content or content.endswith(asked_to_score)


def _bounded(score: float) -> float:
    return min(10.0, max(1.0, score))


def _up_to_stop(text: str, stops: Sequence[str]) -> str:
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


@dataclass(frozen=True)
class AddedToken:
    content: str
    special: bool = True


class ByteTokenizer:
    """One token per byte, and ChatML around turns: the part of a transformers tokenizer that `Renderer` uses."""

    START, END, PAD = 256, 257, 258
    name_or_path = "scripted"
    chat_template = "chatml"
    eos_token_id = END
    added_tokens_decoder: Mapping[int, AddedToken] = {
        START: AddedToken("<|im_start|>"),
        END: AddedToken("<|im_end|>"),
        PAD: AddedToken("<|endoftext|>"),
    }

    def encode(self, text: str, *, split_special_tokens: bool = False, **_: bool) -> list[int]:
        special = {token.content: index for index, token in self.added_tokens_decoder.items()}
        parts = [text] if split_special_tokens else re.split(r"(<\|(?:im_start|im_end|endoftext)\|>)", text)
        token_ids: list[int] = []
        for part in parts:
            whole = not split_special_tokens and part in special
            token_ids += [special[part]] if whole else part.encode("utf-8", errors="replace")
        return token_ids

    def decode(self, token_ids: Sequence[int], **_: bool) -> str:
        return bytes(token for token in token_ids if token < 256).decode("utf-8", errors="replace")

    def apply_chat_template(
        self,
        turns: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: bool = True,
        **_: Any,
    ) -> list[int] | str:
        text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
        text += "<|im_start|>assistant\n" * add_generation_prompt
        return self.encode(text) if tokenize else text
