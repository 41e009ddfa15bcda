"""The engine on an endpoint that speaks OpenAI's protocol: many requests under way, answers kept, spending counted."""

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
    """A request on its way. key: of the call. name: of the model at the endpoint. began: seconds, on the clock of `perf_counter`."""

    request: Request
    key: str
    name: str
    began: float

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def call(self, answer: ApiAnswer, tags: Tags | None, spoiled: bool = False) -> Call:
        """What is kept of it, thinking and answer in one text as other engines have it. tags: around thinking; None: that is left out."""
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
    """See `sparta.engines.base.Engine`. It loads no base, so its requests may be for any in any order.

    calls: the folder where answers are kept, so that equal requests are paid for once; None keeps none. key: where the recipe has `settings`.
    `token_ids` of completions are empty, and neither prefixes nor continuations are supported. After an error, what is under way is finished
    and kept first.

    One background thread runs the event loop that everything under way lives in; only that thread touches the calls while
    something is under way.
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
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Raises SpartaError, naming the model, for an adapter that the endpoint cannot have, or has in an older version; and
        where there is no key. Asks nothing of the endpoint.
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
        """A renderer that says of each prompt whether the model may think; None where nothing speaks for that, or the base is not here."""
        if not Path(base).is_dir() or not may_think(base, self._chat):
            return None
        return load_renderer(base, self.settings.context_length, self._trust_remote_code, self._chat)

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        """Empty: an endpoint's token ids are not known here."""
        return ""

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions as they come. Raises SpartaError where the endpoint does not answer in the end or the money is spent;
        whatever was answered by then is kept, and has been given back.
        """
        # All that others have answered: too much to be read while the event loop waits.
        self._calls.look()
        loop = self._started()
        self._endpoint.ending = False
        failure: SpartaError | None = None
        under_way: set[Future[Completion]] = set()
        try:
            while True:
                while failure is None and (
                    taken := requests.take(self.settings.api.concurrency - len(under_way))
                ):
                    under_way |= {
                        asyncio.run_coroutine_threadsafe(self._complete(one), loop) for one in taken
                    }
                if not under_way:
                    break
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        completion = future.result()
                    except SpartaError as error:
                        failure = failure or error
                        self._endpoint.ending = True
                        continue
                    yield completion
        finally:
            for future in under_way:
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
        """Raises SpartaError where the endpoint's name for an adapter stands for other weights than those of `model`."""
        if model.adapter is None or self._endpoint.loads(model):
            return
        name = self._endpoint.name_of(model)
        asked = self._calls.version_of(model.name, name) or model.version
        if self._versions.setdefault((model.name, name), asked) != model.version:
            raise SpartaError(
                f"model {model.name} has learned, and its name {name} in engine.api.models still stands for what it was: take it "
                "out of engine.api.models and set engine.api.load_adapters, which has each version loaded under a name of its own"
            )

    def _started(self) -> asyncio.AbstractEventLoop:
        """The event loop in its thread, with the client in it."""
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
        assert not request.prefix, "an endpoint does not continue what is begun"
        if request.continuation:
            raise SpartaError(
                "an endpoint does not weigh a text that it is given: tasks with likelihoods of choices are for the engines hf and vllm"
            )
        body = body_of(
            request,
            self._endpoint.name_of(request.model),
            self.settings.api.dialect,
            self._chat.template_kwargs,
        )
        served = request.model.base if self._endpoint.loads(request.model) else body["model"]
        key = key_of(request, body, served)
        # An equal request that is under way is waited for: its answer is then there.
        async with self._asking.setdefault(key, asyncio.Lock()):
            call = self._calls.find(key)
            if call is None:
                asked = _PendingCall(request, key, body["model"], time.perf_counter())
                try:
                    answer = await self._endpoint.chat(request.model, body, partial(self._read, asked))
                except ContextOverflow:
                    return Completion(request.key, "", (), 0, "prompt_too_long", asked.seconds)
                except PromptFiltered:
                    return Completion(request.key, "", (), 0, "stop", asked.seconds)
                call = asked.call(answer, self.renderer(request.model).tags)
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

    def _read(self, asked: _PendingCall, data: str, last: bool) -> ApiAnswer:
        """The answer in `data`. Where a content filter still ends it at the last try, it is an empty one: asking again gives the same.

        Raises Garbled for what is no answer; what that was charged is counted.
        """
        try:
            return read_answer(data, asked.request)
        except Garbled as error:
            nothing = _nothing(error.usage)
            if last and isinstance(error, Filtered):
                return nothing
            if error.usage != Usage():
                self._calls.add(asked.call(nothing, None, spoiled=True))
            raise


def _whole(answer: ApiAnswer, tags: Tags | None) -> str:
    """What the model wrote, put together again where the endpoint has told its thinking apart."""
    if not answer.reasoning or tags is None:
        return answer.text
    if not answer.text:
        return tags.open + answer.reasoning
    return tags.thought(answer.reasoning, opened=False) + answer.text


def _nothing(usage: Usage) -> ApiAnswer:
    """An empty answer, and what it was charged."""
    return ApiAnswer("", usage.prompt_tokens, usage.completion_tokens, "stop")
