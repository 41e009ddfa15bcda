"""The engine on vLLM, for GPUs (and CPUs, for trials): one base at a time, with all its adapters in the same batches."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import exp, fsum
from pathlib import Path
from time import perf_counter
from typing import Any

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.engines.adapter_check import adapts_output
from sparta.engines.base import Completion, Inbox, ModelRef, Request
from sparta.engines.constrained_decoding import grammar_of
from sparta.engines.stopwatch import START, doing
from sparta.engines.tokenizers import Tokenizers
from sparta.engines.vllm.instance import VllmBase
from sparta.engines.vllm.lora_capacity import LoraCapacity, lora_capacities
from sparta.engines.weights import adapter_name, check_model
from sparta.errors import SpartaError, first_line
from sparta.recipes import engine as recipe_engine
from sparta.store.records import FinishReason

_USE_HF = "set engine.kind to hf (for a run that has begun, in a branch made with --fork)"


@dataclass
class _InFlight:
    request: Request
    began: float
    """The engine's accumulated cost when the request was added: see `VllmEngine._share`."""


class VllmEngine:
    """See `sparta.engines.base.Engine`.

    A completion depends only on its request, not on its batch (up to floating-point rounding). Of a base's generation_config.json, only the
    end-of-sequence tokens are used. A label request or a continuation that fills the whole context is `prompt_too_long` here, because vLLM
    always generates one more token.
    """

    def __init__(
        self,
        settings: recipe_engine.EngineSettings,
        trust_remote_code: bool = False,
        chat: ChatOptions = UNDATED,
        compiled: Path | None = None,
    ) -> None:
        self.settings = settings
        self.compiled = compiled
        self.trust_remote_code = trust_remote_code
        self.loads = 0
        self.load_seconds = 0.0
        self._open: VllmBase | None = None
        self._expected: dict[ModelRef, None] = {}
        self._capacities: dict[str, LoraCapacity] = {}
        self._tokenizers = Tokenizers(settings.context_length, trust_remote_code, chat)
        self._number = 0
        self._cost = 0.0

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Reserves capacity for the adapters of these models; an open base with too little is reloaded at its next request.

        Each version of a model is a separate adapter. An adapter that is no longer expected is removed when another is loaded and none of its
        requests is in flight.
        """
        expected = dict.fromkeys(models)
        for model in expected:
            if model not in self._expected:
                check_model(model)
        self._capacities = lora_capacities(expected, self.settings.vllm)
        self._expected = expected

    def renderer(self, model: ModelRef) -> Renderer:
        """The renderer of the model's base. Raises SpartaError if the base is missing or has no chat template."""
        return self._tokenizers.renderer(model.base)

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        return self._tokenizers.fingerprint(model.base)

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions as they finish. vLLM has up to twice as many requests as fit in one batch, so that it never waits."""
        in_flight: dict[str, _InFlight] = {}
        waiting: deque[Request] = deque()
        try:
            while True:
                room = 2 * self.settings.vllm.sequences - len(in_flight)
                if room > 0 and not waiting:
                    base = self._open.base if in_flight and self._open else ""
                    waiting.extend(requests.take(room, base))
                if not waiting and not in_flight:
                    return
                yield from self._admit(waiting, in_flight)
                if in_flight:
                    yield from self._step(in_flight)
        finally:
            if in_flight and self._open is not None:
                self._open.engine.abort_request(list(in_flight))

    def close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()

    def _admit(self, waiting: deque[Request], in_flight: dict[str, _InFlight]) -> Iterator[Completion]:
        """Add waiting requests to vLLM, up to one whose weights can only be loaded once no request is in flight."""
        from vllm.exceptions import VLLMClientError

        while waiting:
            request = waiting[0]
            prompt = request.prompt.token_ids
            assert prompt is not None, "the prompt was rendered without a tokenizer"
            ids = [*prompt, *request.prefix, *request.continuation]
            room = self.renderer(request.model).context_length - len(ids)
            if room < 1:
                waiting.popleft()
                yield Completion(request.key, "", (), len(prompt), "prompt_too_long", 0.0)
                continue
            _check(request)
            opened = self._ready(request.model, bool(in_flight))
            if opened is None:
                return
            if request.continuation and not opened.scores_likelihoods:
                raise SpartaError(
                    f"vLLM on a CPU cannot score log-likelihoods with adapters on base {opened.base}: {_USE_HF}"
                )
            waiting.popleft()
            began = perf_counter()
            name = str(self._number)
            self._number += 1
            grammar = opened.grammars.get(request.pattern)
            with self._closing_on_failure(opened):
                if opened.lacks(request.model):
                    in_use = (entry.request.model for entry in in_flight.values())
                    opened.keep(_adapters(self._expected) | _adapters(in_use))
                lora = opened.lora(request.model)
                try:
                    parameters = _parameters(request, room, grammar)
                    tokens = {"type": "token", "prompt_token_ids": ids}
                    opened.engine.add_request(name, tokens, parameters, lora_request=lora)
                except (ValueError, VLLMClientError) as error:
                    raise SpartaError(
                        f"vLLM rejects a request for {request.model.name}: {first_line(error)}"
                    ) from error
            if request.pattern and grammar is None:
                opened.grammars[request.pattern] = parameters.structured_outputs
            in_flight[name] = _InFlight(request, self._cost)
            self._share(began, len(in_flight))

    def _ready(self, model: ModelRef, busy: bool) -> VllmBase | None:
        """vLLM with the model's base and capacity for its adapter, loaded if necessary; None if it must become idle first."""
        if model not in self._expected:
            self.expect([*self._expected, model])
        opened, capacity = self._open, self._capacities[model.base]
        fits = (
            opened is not None
            and opened.base == model.base
            and opened.capacity.covers(capacity)
            and not opened.outdated(model)
        )
        if fits:
            return opened
        if busy:
            return None
        self.close()
        began = perf_counter()
        context = self.renderer(model).context_length
        with doing(START) as stages:
            self._open = VllmBase(
                model.base, capacity, context, self.settings, self.trust_remote_code, self.compiled
            )
            stages |= self._open.start_stages
        self.loads += 1
        self.load_seconds += perf_counter() - began
        return self._open

    def _step(self, in_flight: dict[str, _InFlight]) -> Iterator[Completion]:
        opened = self._open
        assert opened is not None
        began = perf_counter()
        with self._closing_on_failure(opened):
            outputs = opened.engine.step()
        self._share(began, len(in_flight))
        for output in outputs:
            if output.finished:
                done = in_flight.pop(output.request_id)
                yield self._completion(done, output)

    @contextmanager
    def _closing_on_failure(self, opened: VllmBase) -> Iterator[None]:
        """Close vLLM if it fails inside the context, and raise a SpartaError if the cause is known. A SpartaError passes and closes nothing."""
        try:
            yield
        except SpartaError:
            raise
        except Exception as error:
            explained = opened.failure(error)
            self.close()
            if explained is not None:
                raise explained from error
            raise

    def _share(self, began: float, sharing: int) -> None:
        """Count the seconds since `began`, split equally among the requests in flight."""
        self._cost += (perf_counter() - began) / sharing

    def _completion(self, done: _InFlight, output: Any) -> Completion:
        request, seconds = done.request, self._cost - done.began
        prompt_tokens = len(request.prompt.token_ids or ())
        made = output.outputs[0]
        if made.finish_reason not in ("stop", "length"):
            raise SpartaError(
                f"vLLM aborted a request for {request.model.name} ({made.finish_reason}): see its log for the cause"
            )
        if request.continuation:
            log = _log_likelihood(request, output.prompt_logprobs)
            return Completion(request.key, "", (), prompt_tokens, "stop", seconds, log_likelihood=log)
        if request.labels:
            shares = _label_probs(request, made.logprobs[0])
            return Completion(request.key, "", (), prompt_tokens, "stop", seconds, shares)
        reason: FinishReason = made.finish_reason
        token_ids = tuple(made.token_ids)
        text = self.renderer(request.model).written(token_ids)
        return Completion(request.key, text, token_ids, prompt_tokens, reason, seconds)


def _adapters(models: Iterable[ModelRef]) -> set[str]:
    return {adapter_name(model) for model in models if model.adapter is not None}


def _check(request: Request) -> None:
    """Raises SpartaError for a request that vLLM cannot serve, before anything is loaded for it."""
    if request.continuation:
        if _adapts_output(request.model):
            raise SpartaError(
                f"model {request.model.name}: its adapter changes lm_head, for which vLLM computes wrong log-likelihoods: {_USE_HF}"
            )
        return
    hot = request.sampling.temperature
    if hot > recipe_engine.VLLM_HOTTEST and not request.labels:
        raise SpartaError(
            f"vLLM supports temperatures up to {recipe_engine.VLLM_HOTTEST:g}, but {request.model.name} is to sample at {hot:g}: lower "
            f"generation.temperature or judging.temperature, or {_USE_HF}"
        )


@cache
def _adapts_output(model: ModelRef) -> bool:
    return model.adapter is not None and adapts_output(model.adapter)


def _parameters(request: Request, room: int, grammar: Any = None) -> Any:
    """vLLM's SamplingParams: vLLM detokenizes only if it has to find stop strings.

    grammar: the `structured_outputs` of an earlier request with the same pattern, so that vLLM need not compile it again.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    if request.continuation or request.labels:
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            # 0 returns the log-probability of each prompt token and of no alternatives. Such a request does not use the prefix cache.
            prompt_logprobs=0 if request.continuation else None,
            logprob_token_ids=None if request.continuation else _tokens(request),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
    sampling, kind = request.sampling, SamplingParams
    if grammar is not None:
        from sparta.engines.vllm.grammar_cache import CachedGrammar

        kind = CachedGrammar
    elif request.pattern:
        grammar = StructuredOutputsParams(grammar=grammar_of(request.pattern))
    return kind(
        max_tokens=min(room, sampling.max_new_tokens),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=request.seed,
        stop=list(sampling.stop) or None,
        include_stop_str_in_output=True,
        detokenize=bool(sampling.stop),
        structured_outputs=grammar,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _log_likelihood(request: Request, logprobs: Any) -> float:
    """The continuation's log-likelihood, in nats. logprobs: by input position; the continuation's come last."""
    ends = zip(request.continuation, logprobs[-len(request.continuation) :], strict=True)
    return fsum(position[token].logprob for token, position in ends)


def _label_probs(request: Request, logprobs: Any) -> tuple[float, ...]:
    """Probabilities of the labels, renormalised over the labels; vLLM's are over the whole vocabulary."""
    logs = [logprobs[token].logprob for token in _tokens(request)]
    most = max(logs)
    shares = [exp(log - most) for log in logs]
    total = sum(shares)
    return tuple(share / total for share in shares)


def _tokens(request: Request) -> list[int]:
    return [label.token for label in request.labels if label.token is not None]
