"""An endpoint over HTTP: its key, its names for models, adapters loaded into it, and what to do when it does not answer.

The key leaves this module in the header of a request alone.
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
    answered,
    failure_of,
    said,
    secret_in,
)
from sparta.engines.api.protocol import Garbled, with_room
from sparta.engines.base import ModelRef
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, and at most before any; they double in between."""
_log = logging.getLogger(__name__)


class Endpoint:
    """The endpoint of the recipe. `open` it in an event loop, and use and `close` it in that one alone.

    afford: called before every try; raises SpartaError where nothing more may be spent.
    """

    def __init__(self, settings: recipe_engine.Api, afford: Callable[[], None]) -> None:
        self.settings = settings
        self._afford = afford
        self.ending = False
        """Set to have nothing tried again: the run is over, what is under way may still succeed."""
        self._address = settings.url or ""
        self._client: openai.AsyncOpenAI | None = None
        self._expected: set[str] = set()
        self._loaded: dict[str, str] = {}
        self._loading = asyncio.Lock()
        self._quiet_until = 0.0

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Raises SpartaError where there is no key, or none that may go there, or no name for one of `models`. Asks nothing of the endpoint."""
        self._key()
        self._expected = {self.name_of(model) for model in models}

    def name_of(self, model: ModelRef) -> str:
        """What `model` is called at the endpoint. Raises SpartaError where it cannot be there."""
        if model.name in self.settings.models:
            return self.settings.models[model.name]
        if model.adapter is None:
            return model.base
        if self.settings.load_adapters:
            return adapter_name(model)
        raise SpartaError(
            f"model {model.name}: {self._address} does not know its adapter {model.adapter}: set engine.api.load_adapters "
            f"where that is a vllm serve with runtime LoRA updating, or name the adapter in engine.api.models where it is "
            "served already and is not trained"
        )

    def loads(self, model: ModelRef) -> bool:
        """Whether `model` is loaded into the endpoint from here, under a name that changes with its version."""
        return model.adapter is not None and model.name not in self.settings.models

    def open(self) -> None:
        """Make the client, in the running event loop. Connects to nothing."""
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
        """What `read` makes of the answer to `body`, tried again where that may help; for fewer new tokens, once, where the context
        holds the prompt and not so many. read: is told whether this is the last try, and raises Garbled for what is no answer.

        Raises ContextOverflow and PromptFiltered, and SpartaError where there is no answer in the end.
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
            self._afford()
            await self._have(model)
            return read(await self._post("/chat/completions", body), last)

        tries = 0
        while True:
            await self._silence()
            try:
                return await send(tries == self.settings.retries)
            except (openai.APIError, TimeoutError, Garbled) as error:
                failure = self._failure(error, str(body["model"]))
            until = asyncio.get_running_loop().time() + min(failure.wait, PATIENCE)
            self._quiet_until = max(self._quiet_until, until)
            tries += 1
            if not failure.again or self.ending or tries > self.settings.retries:
                # Without its cause: a traceback would show what the server said, which may repeat the key.
                raise self._given_up(failure, model, tries) from None
            _log.info("%s: %s; trying again", self._address, failure.what)
            doubled = min(FIRST_WAIT * 2.0 ** (tries - 1), LONGEST_WAIT)
            await self._rest(doubled * random.uniform(0.5, 1.0))

    async def _post(self, path: str, body: dict[str, Any]) -> str:
        assert self._client is not None, "the endpoint was not opened"
        async with asyncio.timeout(self.settings.timeout):
            return await self._client.post(path, cast_to=str, body=body)

    async def _silence(self) -> None:
        """Wait until the endpoint wants to be asked again; not all at the same moment."""
        left = self._quiet_until - asyncio.get_running_loop().time()
        await self._rest(left * random.uniform(1.0, 1.1))

    async def _rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while not self.ending and (left := until - now()) > 0:
            await asyncio.sleep(min(left, 1.0))

    async def _have(self, model: ModelRef) -> None:
        """Have the adapter of `model` loaded, and unload what other versions of it were loaded and are expected no more."""
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
            if "already been loaded" in said(error):
                return
            if error.status_code in (408, 429, 502, 503, 504):
                raise
            raise SpartaError(
                f"{self._address} cannot load the adapter {folder} of {model.name} ({answered(error, self.settings)}): it must see this "
                "folder under the same path and be a vllm serve with --enable-lora, a --max-lora-rank that is large enough and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            ) from None

    async def _unload(self, name: str) -> None:
        try:
            await self._post("/unload_lora_adapter", {"lora_name": name})
        except openai.NotFoundError:
            _log.info("%s has unloaded %s already", self._address, name)

    def _failure(self, error: Exception, name: str) -> ApiFailure:
        """What `error` means. An adapter that was loaded and is unknown now will be loaded again. Raises ContextOverflow and PromptFiltered."""
        lost = isinstance(error, openai.NotFoundError) and self._loaded.pop(name, None) is not None
        failure = failure_of(error, self.settings)
        return replace(failure, again=True) if lost else failure

    def _given_up(self, failure: ApiFailure, model: ModelRef, tries: int) -> SpartaError:
        asked = f"{tries} times for {model.name}" if tries > 1 else f"for {model.name}"
        return SpartaError(
            f"{self._address}, asked {asked}, {failure.what}: {failure.remedy} and run the same command again, "
            "which goes on with the answers that there are"
        )

    def _key(self) -> str:
        """The key; a placeholder where a server of one's own needs none. Raises SpartaError where there must be one, and where it would
        go over a network that others read, in clear.
        """
        variable, url = self.settings.key_variable, urlsplit(self.settings.url or "")
        key, near = secret_in(variable), _is_near(url.hostname or "")
        if key and url.scheme == "http" and not near:
            raise SpartaError(
                f"{self._address} would be sent the key in the environment variable {variable} unencrypted: use https://, or the private "
                "address (such as 10.0.0.7) of a server on your own network, or set engine.api.key_variable to a variable that holds none "
                "where the server needs none"
            )
        if not key and url.scheme == "https" and not near:
            raise SpartaError(
                f"{self._address} needs a key and the environment variable {variable} holds none: "
                "export it, or set engine.api.key_variable to the variable that does"
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise SpartaError(
                f"the environment variable {variable} holds no key, but something with spaces or letters that keys have not: correct it"
            )
        return key or "none"


def _is_near(host: str) -> bool:
    """Whether `host` is this machine or a private address. A name is not: who answers to it is not known here."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"
