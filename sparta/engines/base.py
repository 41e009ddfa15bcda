"""What every engine does: take requests for models of the pool, give completions back as they finish.

An engine holds one base at a time (or more where it can) with the adapters asked for, renders nothing by
itself and retries nothing. Phases build requests with the engine's renderer; order and batching are the
engine's business.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparta.prompts import Prompt, Renderer
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

    base: a folder with the base model (or a hub id). adapter: a PEFT folder, None for a full model. version:
    changes with the weights, so that nothing cached under an older version is ever used for this one.
    """

    name: str
    base: str
    adapter: Path | None
    version: str


@dataclass(frozen=True)
class Request:
    """One completion to be made. key comes back unchanged.

    labels: with token ids given, nothing is decoded; the completion carries the probabilities of these ids as
    the next token, renormalised.
    prefix: token ids the completion must start with (they follow the prompt and are not part of the result).
    """

    key: str
    model: ModelRef
    prompt: Prompt
    sampling: Sampling
    seed: int
    labels: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What came of a request.

    text: special tokens left out. token_ids: as sampled, the end-of-sequence token included where produced.
    label_probs: [labels], for label requests alone. seconds: this request's share of its batch.
    """

    key: str
    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: FinishReason
    seconds: float
    label_probs: tuple[float, ...] = ()


class Engine(Protocol):
    """An engine is used by one thread; `close` frees what it holds and may be called twice."""

    loads: int
    """Bases loaded so far: what costs minutes on a GPU, so it is counted."""

    def renderer(self, model: ModelRef) -> Renderer: ...

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        """Equal for two models exactly if token ids mean the same to both."""
        ...

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in any order, each as soon as it is finished."""
        ...

    def close(self) -> None: ...
