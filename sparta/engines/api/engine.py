"""The engine for an endpoint with OpenAI's API: concurrent requests, cached answers, counted spending."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from weakref import WeakValueDictionary

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import EndpointRenderer, Renderer
from sparta.chat.thinking import Tags
from sparta.engines.api.call_cache import Call, Calls
from sparta.engines.api.endpoint import Endpoint
from sparta.engines.api.errors import ContextOverflow, PromptFiltered
from sparta.engines.api.protocol import ApiAnswer, Filtered, Garbled, Usage, body_of, key_of, read_answer
from sparta.engines.base import Completion, Inbox, ModelRef, Request
from sparta.engines.tokenizers import load_renderer, may_think
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine


@dataclass(frozen=True)
class _PendingCall:
    """A request in flight. key: of the call. name: of the model at the endpoint. began: seconds, on the clock of `perf_counter`."""

    request: Request
    key: str
    name: str
    began: float

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def call(self, answer: ApiAnswer, tags: Tags | None, spoiled: bool = False) -> Call:
        """The record to cache, with thinking and answer in one text, as from other engines. tags: around thinking; None leaves thinking out."""
        return Call(
            key=self.key,
            model=self.name,
            member=self.request.model.name,
            version=self.request.model.version,
            text=_whole(answer, tags),
            prompt_tokens=answer.prompt_tokens,
            new_tokens=answer.new_tokens,
            finish_reason=answer.finish_reason,
            label_probs=answer.label_probs,
            seconds=self.seconds,
            spoiled=spoiled,
        )


class ApiEngine:
    """See `sparta.engines.base.Engine`. It loads no base, so requests may be for any base in any order.

    calls: the folder that caches answers, so that equal requests are paid for once; None caches nothing. key: where the recipe has `settings`.
    `token_ids` of completions are empty; prefixes and continuations are not supported. After an error, requests in flight are finished
    and cached first.

    One background thread runs the event loop for all requests; while any is in flight, only that thread uses the call cache.
    """

    def __init__(
        self,
        settings: recipe_engine.EngineSettings,
        calls: Path | None,
        key: str = "engine",
        chat: ChatOptions = UNDATED,
        trust_remote_code: bool = False,
    ) -> None:
        self.settings, self._chat, self._trust_remote_code = settings, chat, trust_remote_code
        self.loads = 0
        self.load_seconds = 0.0
        self._calls = Calls(calls, settings.api, key)
        self._endpoint = Endpoint(settings.api, self._calls.check_budget)
        self._renderers: dict[str, EndpointRenderer] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Raises SpartaError, naming the model, for an adapter that the endpoint cannot serve, or serves in an older version; and
        if the key is missing. Sends no request.
        """
        models = list(models)
        self._endpoint.expect(models)
        for model in models:
            self._check_version(model)

    def renderer(self, model: ModelRef) -> Renderer:
        if model.base not in self._renderers:
            self._renderers[model.base] = EndpointRenderer(self._chat, self._local(model.base))
        return self._renderers[model.base]

    def _local(self, base: str) -> Renderer | None:
        """A local renderer, which tells whether a prompt invites thinking; None if models on this base do not think, or the base is not on disk."""
        if not Path(base).is_dir() or not may_think(base, self._chat):
            return None
        return load_renderer(base, self.settings.context_length, self._trust_remote_code, self._chat)

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        """Empty: an endpoint's token ids are unknown."""
        return ""

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions as they arrive. Raises SpartaError if the endpoint fails for good or the budget is spent; answers received
        by then have been cached and yielded.
        """
        # The first read can take long, so it happens before the event loop starts.
        self._calls.refresh()
        loop = self._started()
        self._endpoint.ending = False
        failure: SpartaError | None = None
        in_flight: set[Future[Completion]] = set()
        try:
            while True:
                while failure is None and (
                    taken := requests.take(self.settings.api.concurrency - len(in_flight))
                ):
                    in_flight |= {
                        asyncio.run_coroutine_threadsafe(self._complete(one), loop) for one in taken
                    }
                if not in_flight:
                    break
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        completion = future.result()
                    except SpartaError as error:
                        failure = failure or error
                        self._endpoint.ending = True
                        continue
                    yield completion
        finally:
            for future in in_flight:
                future.cancel()
        self._calls.flush()
        if failure is not None:
            raise failure

    def close(self) -> None:
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None
        self._calls.close()

    def _check_version(self, model: ModelRef) -> None:
        """Raises SpartaError if the endpoint's name for an adapter stands for other weights than those of `model`."""
        if model.adapter is None or self._endpoint.loads(model):
            return
        name = self._endpoint.name_of(model)
        first = self._calls.version_of(model.name, name) or model.version
        if self._versions.setdefault((model.name, name), first) != model.version:
            raise SpartaError(
                f"model {model.name} was trained since, but its name {name} in engine.api.models stands for its old weights: take it "
                "out of engine.api.models and set engine.api.load_adapters, which loads each version under a new name"
            )

    def _started(self) -> asyncio.AbstractEventLoop:
        """The event loop, started in its thread on first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self._loop

    async def _open(self) -> None:
        self._endpoint.open()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._endpoint.close()

    async def _complete(self, request: Request) -> Completion:
        assert not request.prefix, "an endpoint cannot continue a begun completion"
        if request.continuation:
            raise SpartaError(
                "an endpoint cannot score the log-likelihood of a given text: use the engines hf or vllm for tasks that need it"
            )
        body = body_of(
            request,
            self._endpoint.name_of(request.model),
            self.settings.api.dialect,
            self._chat.template_kwargs,
        )
        served = request.model.base if self._endpoint.loads(request.model) else body["model"]
        key = key_of(request, body, served)
        # If an equal request is in flight, wait for it and use its answer.
        async with self._locks.setdefault(key, asyncio.Lock()):
            call = self._calls.find(key)
            if call is None:
                pending = _PendingCall(request, key, body["model"], time.perf_counter())
                try:
                    answer = await self._endpoint.chat(request.model, body, partial(self._read, pending))
                except ContextOverflow:
                    return Completion(request.key, "", (), 0, "prompt_too_long", pending.seconds)
                except PromptFiltered:
                    return Completion(request.key, "", (), 0, "stop", pending.seconds)
                call = pending.call(answer, self.renderer(request.model).tags)
                self._calls.add(call)
        return Completion(
            request.key,
            call.text,
            (),
            call.prompt_tokens,
            call.finish_reason,
            call.seconds,
            call.label_probs,
            counted=call.new_tokens,
        )

    def _read(self, pending: _PendingCall, data: str, last: bool) -> ApiAnswer:
        """The answer in `data`. If a content filter ends even the last attempt, the answer is empty, since another run would get the same.

        Raises Garbled for an invalid answer, and counts what it was charged.
        """
        try:
            return read_answer(data, pending.request)
        except Garbled as error:
            empty = _empty(error.usage)
            if last and isinstance(error, Filtered):
                return empty
            if error.usage != Usage():
                self._calls.add(pending.call(empty, None, spoiled=True))
            raise


def _whole(answer: ApiAnswer, tags: Tags | None) -> str:
    """Thinking and answer in one text, rejoined if the endpoint returned them separately."""
    if not answer.reasoning or tags is None:
        return answer.text
    if not answer.text:
        return tags.open + answer.reasoning
    return tags.thought(answer.reasoning, opened=False) + answer.text


def _empty(usage: Usage) -> ApiAnswer:
    """An empty answer, with what it was charged."""
    return ApiAnswer("", usage.prompt_tokens, usage.completion_tokens, "stop")
