"""The engine on transformers and PEFT, for CPUs and GPUs: one base in memory, many adapters on it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.engines.base import Completion, Inbox, ModelRef, Request
from sparta.engines.constrained_decoding import Patterns, matcher_of
from sparta.engines.hf.batching import Batch, BatchRow, batches
from sparta.engines.hf.likelihood import logits_in_tokens, scored
from sparta.engines.hf.sampling import Ending, Sampler, StopStrings
from sparta.engines.tokenizers import Tokenizers
from sparta.engines.weights import Weights, check_model
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine
from sparta.store.records import FinishReason

if TYPE_CHECKING:
    from torch import Tensor


ROUND = 1000
"""Requests that are sorted into batches together: more make fuller batches, but follow-up requests wait longer."""


class HfEngine:
    """See `sparta.engines.base.Engine`.

    A completion depends only on its request, not on its batch (up to floating-point rounding). Of a base's
    generation_config.json, only the end-of-sequence tokens are used.
    """

    def __init__(
        self,
        settings: recipe_engine.EngineSettings,
        trust_remote_code: bool = False,
        chat: ChatOptions = UNDATED,
    ) -> None:
        self.settings = settings
        self.trust_remote_code = trust_remote_code
        self._weights = Weights(settings, trust_remote_code)
        self._tokenizers = Tokenizers(settings.context_length, trust_remote_code, chat)
        self._stops: dict[tuple[str, tuple[str, ...]], StopStrings] = {}
        self._matchers: dict[tuple[str, str], Any] = {}

    @property
    def loads(self) -> int:
        return self._weights.loads

    @property
    def load_seconds(self) -> float:
        return self._weights.load_seconds

    def expect(self, models: Iterable[ModelRef]) -> None:
        for model in models:
            check_model(model)

    def renderer(self, model: ModelRef) -> Renderer:
        """The renderer of the model's base. Raises SpartaError if the base is missing or has no chat template."""
        return self._tokenizers.renderer(model.base)

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        return self._tokenizers.fingerprint(model.base)

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions batch by batch. Prompts that leave no room for a token or for their continuation come first in their round, as
        `prompt_too_long`.
        """
        while taken := requests.take(ROUND, self._weights.base or "") or requests.take(ROUND):
            rows = []
            for request in taken:
                row = self._row(request)
                if row is None:
                    tokens = len(request.prompt.token_ids or ())
                    yield Completion(request.key, "", (), tokens, "prompt_too_long", 0.0)
                else:
                    rows.append(row)
            for batch in batches(rows, self.settings.batch_tokens):
                for model in batch.models:
                    self._weights.hold(model)
                yield from self._complete(batch)

    def close(self) -> None:
        self._weights.free()
        self._stops.clear()
        self._matchers.clear()

    def _row(self, request: Request) -> BatchRow | None:
        assert request.prompt.token_ids is not None, "the prompt was rendered without a tokenizer"
        renderer, continuation = self.renderer(request.model), request.continuation
        ids = request.prompt.token_ids + request.prefix
        room = renderer.context_length - len(ids) - len(continuation)
        if continuation:
            logits = logits_in_tokens(len(continuation), len(renderer.tokenizer))
            return None if room < 0 else BatchRow(request, ids + continuation[:-1], 0, logits)
        # A label request never feeds the label to the model, so it needs no room.
        if room < (0 if request.labels else 1):
            return None
        limit = 0 if request.labels else min(room, request.sampling.max_new_tokens)
        return BatchRow(request, ids, limit)

    def _complete(self, batch: Batch) -> list[Completion]:
        import torch

        began = perf_counter()
        try:
            with torch.inference_mode(), self._weights.active(batch.model) as module:
                if batch.limit:
                    completions = self._decode(batch, module)
                else:
                    completions = scored(batch, module, self._weights, *self._padded(batch))
        except torch.cuda.OutOfMemoryError as error:
            raise SpartaError(
                f"a batch of {len(batch.rows)} rows with {batch.width} + {batch.limit} tokens does not fit in the "
                f"GPU's memory: lower engine.batch_tokens, now {self.settings.batch_tokens}"
            ) from error
        share = (perf_counter() - began) / len(batch.rows)
        return [replace(completion, seconds=share) for completion in completions]

    def _decode(self, batch: Batch, module: Any) -> list[Completion]:
        from transformers import GenerationConfig

        tokenizer = self.renderer(batch.model).tokenizer
        device, width = self._weights.device, batch.width
        input_ids, mask = self._padded(batch)
        seeds = [row.request.seed for row in batch.rows]
        ends = {*self._weights.ends, tokenizer.eos_token_id} - {None}
        limits = [row.limit for row in batch.rows]
        ending = Ending(width, limits, sorted(ends), self._stop_strings(batch, tokenizer), device)
        sequences = module.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                max_new_tokens=batch.limit, do_sample=False, pad_token_id=_padding(tokenizer)
            ),
            logits_processor=[
                *self._patterns(batch, tokenizer, sorted(ends)),
                Sampler(batch.sampling, seeds, width, device),
            ],
            stopping_criteria=[ending],
        )
        made = zip(
            batch.rows,
            sequences[:, width:].tolist(),
            ending.lengths.tolist(),
            ending.stopped.tolist(),
            strict=True,
        )
        completions = []
        for row, tokens, length, stopped in made:
            token_ids = tuple(tokens[:length])
            text = self.renderer(batch.model).written(token_ids)
            prompt_tokens = len(row.request.prompt.token_ids or ())
            reason: FinishReason = "stop" if stopped else "length"
            completions.append(Completion(row.request.key, text, token_ids, prompt_tokens, reason, 0.0))
        return completions

    def _padded(self, batch: Batch) -> "tuple[Tensor, Tensor]":
        """Token ids and attention mask, [rows, width], padded on the left."""
        import torch

        padding, width = _padding(self.renderer(batch.model).tokenizer), batch.width
        ids = [[padding] * (width - len(row.ids)) + list(row.ids) for row in batch.rows]
        mask = [[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in batch.rows]
        device = self._weights.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _stop_strings(self, batch: Batch, tokenizer: Any) -> StopStrings | None:
        stops = batch.sampling.stop
        if not stops:
            return None
        key = (batch.model.base, stops)
        if key not in self._stops:
            self._stops[key] = StopStrings(
                tokenizer, stops, self._vocabulary(tokenizer), self._weights.device
            )
        return self._stops[key]

    def _patterns(self, batch: Batch, tokenizer: Any, ends: Sequence[int]) -> list[Patterns]:
        """The logits processor for the batch's pattern; empty if it has none."""
        pattern = batch.rows[0].request.pattern
        if not pattern:
            return []
        key = (batch.model.base, pattern)
        if key not in self._matchers:
            self._matchers[key] = matcher_of(pattern, tokenizer, self._vocabulary(tokenizer))
        return [Patterns(self._matchers[key], len(batch.rows), ends, batch.width)]

    def _vocabulary(self, tokenizer: Any) -> int:
        """Width of the model's logits, in tokens."""
        return max(int(self._weights.config.vocab_size), len(tokenizer))


def _padding(tokenizer: Any) -> int:
    """A token id for masked positions; any will do."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((int(token) for token in known if token is not None), 0)
