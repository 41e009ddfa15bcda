"""What every engine does: take requests for models of the pool, give completions back as they finish.

An engine holds one base at a time (or more where it can) with the adapters asked for, renders nothing by
itself and retries nothing. Phases build requests with the engine's renderer; order and batching are the
engine's business.
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

    base: a folder with the base model; of a judge of evaluations at an endpoint, the model's name there. adapter: a PEFT
    folder, None for a full model. version: changes with the weights, so that nothing cached under an older version is
    ever used for this one.
    """

    name: str
    base: str
    adapter: Path | None
    version: str

    @property
    def weights(self) -> tuple[str, Path | None, str]:
        """Equal for members that are one model under several names: an engine holds it once and answers as each of them."""
        return self.base, self.adapter, self.version


class Label(NamedTuple):
    """A label of `expected` judging. token: its id right after the prompt; None where there is no local tokenizer."""

    text: str
    token: int | None


@dataclass(frozen=True)
class Request:
    """One completion to be made. key comes back unchanged.

    labels: where there are any, nothing is decoded; the completion carries their probabilities as the next
    token, renormalised.
    prefix: token ids the completion must start with (they follow the prompt and are not part of the result).
    pattern: a regular expression that the whole completion is made to match; "" leaves it free. A completion
    that runs into its limit is a beginning of a match.
    continuation: where there are any token ids, nothing is decoded; the completion carries their log-likelihood
    after the prompt.
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
    """What came of a request.

    text: thinking and all, special tokens left out but for the tags of thinking (see `Renderer.split_reply`). token_ids: as sampled, the end-of-sequence token included where produced.
    label_probs: [labels], for label requests alone; empty where an endpoint names none of them. seconds: what
    the request cost, or its share of what its batch cost. counted: tokens that an endpoint says it has generated.
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
        """How many tokens were generated, by an endpoint's own count where it gives no ids."""
        return len(self.token_ids) or self.counted


class Inbox:
    """Requests on their way to an engine: those it was made with, drawn one by one, and before them those put
    in while the engine runs, in answer to what it has completed.
    """

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self._rest = iter(requests)
        self._drawn: deque[Request] = deque(maxlen=1)
        self._put: deque[Request] = deque()

    def put(self, request: Request) -> None:
        """Add a request, to be taken before all that have not been taken yet but were not put in."""
        self._put.append(request)

    def take(self, most: int, base: str = "") -> list[Request]:
        """At most `most` requests for models of one base: `base`, or that of the next request.

        Fewer may be there although more follow: for another base, or yet to be put in. Empty: none for now.
        """
        taken: list[Request] = []
        while len(taken) < most and (queue := self._next()):
            if base and queue[0].model.base != base:
                break
            base = queue[0].model.base
            taken.append(queue.popleft())
        return taken

    def _next(self) -> deque[Request]:
        """The queue whose first request comes next; an empty one where there is none."""
        if self._put:
            return self._put
        if not self._drawn:
            self._drawn.extend(islice(self._rest, 1))
        return self._drawn


class Engine(Protocol):
    """An engine is used by one thread; `close` frees what it holds and may be called twice."""

    @property
    def loads(self) -> int:
        """Bases loaded so far: what costs minutes on a GPU, so it is counted."""
        ...

    @property
    def load_seconds(self) -> float:
        """What these loads took."""
        ...

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Told before `run` which models requests may be for: memory for adapters is set aside once.

        Raises SpartaError, naming the model, where one cannot work. Loads nothing.
        """
        ...

    def renderer(self, model: ModelRef) -> Renderer: ...

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        """Equal for two models exactly if token ids mean the same to both."""
        ...

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions in any order, each as soon as it is finished, until nothing is under way and the inbox empty.

        Whoever consumes them may put requests in between two of them. One base is held at a time.
        """
        ...

    def close(self) -> None: ...
