"""An endpoint over HTTP: its API key, its model names, the adapters loaded into it, and retries.

The key leaves this module only in request headers.
"""

import asyncio
import ipaddress
import logging
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from sparta.engines.api.errors import (
    PATIENCE,
    ApiFailure,
    ContextOverflow,
    failure_of,
    response_text,
    secret_in,
    status_and_message,
)
from sparta.engines.api.protocol import LIMIT, Garbled, with_room
from sparta.engines.base import ModelRef
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds to wait before the first retry, and at most before any; the wait doubles in between."""
_log = logging.getLogger(__name__)


class Endpoint:
    """The endpoint of the recipe. `open`, use and `close` it in one event loop.

    check_budget: called before every attempt; raises SpartaError if the budget is spent.
    """

    def __init__(self, settings: recipe_engine.Api, check_budget: Callable[[], None]) -> None:
        self.settings = settings
        self._check_budget = check_budget
        self.ending = False
        """If set, nothing is retried: the run is ending, and only requests in flight may still succeed."""
        self._address = settings.url or ""
        self._client: openai.AsyncOpenAI | None = None
        self._expected: set[str] = set()
        self._loaded: dict[str, str] = {}
        self._loading = asyncio.Lock()
        self._quiet_until = 0.0

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Raises SpartaError if the key is missing or must not be sent there, or if one of `models` has no name there. Sends no request."""
        self._key()
        self._expected = {self.name_of(model) for model in models}

    def name_of(self, model: ModelRef) -> str:
        """The name of `model` at the endpoint. Raises SpartaError if the endpoint cannot serve it."""
        if model.name in self.settings.models:
            return self.settings.models[model.name]
        if model.adapter is None:
            return model.base
        if self.settings.load_adapters:
            return adapter_name(model)
        raise SpartaError(
            f"model {model.name}: {self._address} does not know its adapter {model.adapter}: set engine.api.load_adapters "
            f"if that is a vllm serve with runtime LoRA updating, or name the adapter in engine.api.models if it is "
            "served already and is not trained"
        )

    def loads(self, model: ModelRef) -> bool:
        """Whether we load the adapter of `model` into the endpoint, under a name that changes with its version."""
        return model.adapter is not None and model.name not in self.settings.models

    def open(self) -> None:
        """Create the client, in the running event loop. Opens no connection."""
        self._client = openai.AsyncOpenAI(
            api_key=self._key(),
            base_url=self.settings.url,
            timeout=self.settings.timeout,
            max_retries=0,
        )

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def chat(self, model: ModelRef, body: dict[str, Any], read: Callable[[str, bool], T]) -> T:
        """The answer to `body`, parsed by `read`. Retries failures that may be temporary. If the context holds the prompt but not so many new
        tokens, asks once more for fewer. read(data, last): last is True on the last attempt; raises Garbled for an invalid answer.

        Raises ContextOverflow and PromptFiltered, and SpartaError if all attempts fail.
        """
        try:
            return await self._chat(model, body, read)
        except ContextOverflow as overflow:
            shorter = with_room(body, overflow.left)
            if shorter is None:
                raise
        return await self._chat(model, shorter, read)

    async def _chat(self, model: ModelRef, body: dict[str, Any], read: Callable[[str, bool], T]) -> T:
        async def send(last: bool) -> T:
            self._check_budget()
            await self._require_adapter(model)
            return read(await self._post("/chat/completions", self._spelled(body)), last)

        tries = 0
        while True:
            await self._backoff()
            try:
                return await send(tries == self.settings.retries)
            except (openai.APIError, TimeoutError, Garbled) as error:
                failure = self._failure(error, str(body["model"]))
            until = asyncio.get_running_loop().time() + min(failure.wait, PATIENCE)
            self._quiet_until = max(self._quiet_until, until)
            tries += 1
            if not failure.again or self.ending or tries > self.settings.retries:
                # Without its cause: a traceback would show the server's answer, which may contain the key.
                raise self._final_error(failure, model, tries) from None
            _log.info("%s: %s; trying again", self._address, failure.what)
            doubled = min(FIRST_WAIT * 2.0 ** (tries - 1), LONGEST_WAIT)
            await self._rest(doubled * random.uniform(0.5, 1.0))

    def _spelled(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` with the limit of new tokens under the name that the endpoint takes."""
        if not self.settings.max_completion_tokens or LIMIT not in body:
            return body
        return {"max_completion_tokens" if name == LIMIT else name: value for name, value in body.items()}

    async def _post(self, path: str, body: dict[str, Any]) -> str:
        assert self._client is not None, "the endpoint was not opened"
        async with asyncio.timeout(self.settings.timeout):
            return await self._client.post(path, cast_to=str, body=body)

    async def _backoff(self) -> None:
        """Wait as long as the endpoint has requested, with jitter."""
        left = self._quiet_until - asyncio.get_running_loop().time()
        await self._rest(left * random.uniform(1.0, 1.1))

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while not self.ending and (left := until - now()) > 0:
            await asyncio.sleep(min(left, 1.0))

    async def _require_adapter(self, model: ModelRef) -> None:
        """Load the adapter of `model` unless it is loaded; then unload its other versions, except expected ones."""
        name = self.name_of(model)
        if not self.loads(model) or name in self._loaded:
            return
        async with self._loading:
            if name in self._loaded:
                return
            await self._load(model, name)
            for old in [old for old, member in self._loaded.items() if member == model.name]:
                if old not in self._expected:
                    del self._loaded[old]
                    await self._unload(old)
            self._loaded[name] = model.name

    async def _load(self, model: ModelRef, name: str) -> None:
        assert model.adapter is not None
        folder = model.adapter.absolute()
        try:
            await self._post("/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except openai.APIStatusError as error:
            if "already been loaded" in response_text(error):
                return
            if error.status_code in (408, 429, 502, 503, 504):
                raise
            raise SpartaError(
                f"{self._address} cannot load the adapter {folder} of {model.name} ({status_and_message(error, self.settings)}): it must see this "
                "folder under the same path and be a vllm serve with --enable-lora, a --max-lora-rank that is large enough and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            ) from None

    async def _unload(self, name: str) -> None:
        try:
            await self._post("/unload_lora_adapter", {"lora_name": name})
        except openai.NotFoundError:
            _log.info("%s has unloaded %s already", self._address, name)

    def _failure(self, error: Exception, name: str) -> ApiFailure:
        """What `error` means. If the endpoint has lost an adapter that was loaded, it is loaded again. Raises ContextOverflow and PromptFiltered."""
        lost = isinstance(error, openai.NotFoundError) and self._loaded.pop(name, None) is not None
        failure = failure_of(error, self.settings)
        return replace(failure, again=True) if lost else failure

    def _final_error(self, failure: ApiFailure, model: ModelRef, tries: int) -> SpartaError:
        asked = f"{tries} times for {model.name}" if tries > 1 else f"for {model.name}"
        return SpartaError(
            f"{self._address}, asked {asked}, {failure.what}: {failure.remedy} and run the same command again, "
            "which keeps the answers received so far"
        )

    def _key(self) -> str:
        """The API key, or a placeholder for a private server that needs none. Raises SpartaError if a required key is missing, or if the key
        would cross a public network unencrypted.
        """
        variable, url = self.settings.key_variable, urlsplit(self.settings.url or "")
        key, near = secret_in(variable), _is_near(url.hostname or "")
        if key and url.scheme == "http" and not near:
            raise SpartaError(
                f"the key in the environment variable {variable} would be sent to {self._address} unencrypted: use https://, or the private "
                "address (such as 10.0.0.7) of a server on your own network, or, if the server needs no key, set engine.api.key_variable to "
                "an empty variable"
            )
        if not key and url.scheme == "https" and not near:
            raise SpartaError(
                f"{self._address} needs a key, but the environment variable {variable} is empty: "
                "export it, or set engine.api.key_variable to the variable that holds the key"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise SpartaError(
                f"the environment variable {variable} does not hold a valid key: it contains spaces or non-ASCII characters; correct it"
            )
        return key or "none"


def _is_near(host: str) -> bool:
    """Whether `host` is this machine or a private address. Any other host name is not: it may resolve to anything."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"
