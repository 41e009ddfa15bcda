"""The engine interface: it takes requests for models of the pool and yields completions as they finish.

An engine holds one base at a time, with the requested adapters. It does not render prompts and does not retry.
Phases build requests with the engine's renderer; the engine decides order and batching.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from sparta.chat.renderer import Prompt, Renderer
from sparta.store.records import FinishReason


@dataclass(frozen=True)
class Sampling:
    """How to decode. temperature 0 is greedy. stop: strings that end the completion (kept in its text)."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRef:
    """A model of the pool as an engine needs it.

    base: a folder with the base model; for an evaluation judge at an endpoint, the model's name there. adapter: a PEFT
    folder, None for a full model. version: changes with the weights, so that caches never mix versions.
    """

    name: str
    base: str
    adapter: Path | None
    version: str

    @property
    def weights(self) -> tuple[str, Path | None, str]:
        """Equal for members with the same weights: an engine loads these once and serves all the names."""
        return self.base, self.adapter, self.version


class Label(NamedTuple):
    """A label of `expected` judging. token: its id right after the prompt; None if there is no local tokenizer."""

    text: str
    token: int | None


@dataclass(frozen=True)
class Request:
    """One request for a completion. key: returned unchanged with the completion.

    labels: if given, nothing is decoded; the completion holds their next-token probabilities, renormalised.
    prefix: token ids the completion must start with (they follow the prompt and are not part of the result).
    pattern: a regular expression that constrains the whole completion; "" for none. A completion cut off at its
    limit is the beginning of a match.
    continuation: if given, nothing is decoded; the completion holds the log-likelihood of these token ids after
    the prompt.
    """

    key: str
    model: ModelRef
    prompt: Prompt
    sampling: Sampling
    seed: int
    labels: tuple[Label, ...] = ()
    prefix: tuple[int, ...] = ()
    pattern: str = ""
    continuation: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """The result of a request.

    text: includes any thinking; without special tokens, except the thinking tags (see `Renderer.split_reply`). token_ids: as
    sampled, including the end-of-sequence token if there is one. label_probs: [labels], for label requests only; empty if
    an endpoint returned none of the labels. seconds: what the request took, or its share of its batch. counted: new tokens
    that an endpoint reports.
    """

    key: str
    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: FinishReason
    seconds: float
    label_probs: tuple[float, ...] = ()
    counted: int = 0
    log_likelihood: float = 0.0

    @property
    def new_tokens(self) -> int:
        """How many tokens were generated; an endpoint's own count if there are no token ids."""
        return len(self.token_ids) or self.counted


class Inbox:
    """The requests for an engine: an iterable, consumed lazily, and follow-up requests put in while the engine runs, which come first."""

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self._rest = iter(requests)
        self._drawn: deque[Request] = deque(maxlen=1)
        self._put: deque[Request] = deque()

    def put(self, request: Request) -> None:
        """Add a follow-up request. It is taken before the rest of the iterable."""
        self._put.append(request)

    def take(self, most: int, base: str = "") -> list[Request]:
        """At most `most` requests for models of one base: `base`, or that of the next request.

        May return fewer although more follow: those are for another base, or not put in yet. Empty: none for now.
        """
        taken: list[Request] = []
        while len(taken) < most and (queue := self._next()):
            if base and queue[0].model.base != base:
                break
            base = queue[0].model.base
            taken.append(queue.popleft())
        return taken

    def _next(self) -> deque[Request]:
        """The queue whose first request comes next; empty if there is none."""
        if self._put:
            return self._put
        if not self._drawn:
            self._drawn.extend(islice(self._rest, 1))
        return self._drawn


class Engine(Protocol):
    """An engine is used by one thread; `close` frees what it holds and may be called twice."""

    @property
    def loads(self) -> int:
        """Bases loaded so far; each load takes minutes on a GPU."""
        ...

    @property
    def load_seconds(self) -> float:
        """What these loads took."""
        ...

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Declare, before `run`, the models that requests may be for, so that memory for adapters is reserved once. Loads nothing.

        Raises SpartaError, naming the model, if this engine cannot serve one of them.
        """
        ...

    def renderer(self, model: ModelRef) -> Renderer: ...

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        """Equal for two models if and only if token ids mean the same to both."""
        ...

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions in any order, each as soon as it is finished, until no request is in flight and the inbox is empty.

        The consumer may put in requests between two completions. One base is loaded at a time.
        """
        ...

    def close(self) -> None: ...
