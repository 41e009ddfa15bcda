"""The engine on vLLM, for GPUs and, to try it, CPUs: one base at a time, all adapters on it in the same batches."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import exp, fsum
from time import perf_counter
from typing import Any

from sparta.chat.options import UNDATED, ChatOptions
from sparta.chat.renderer import Renderer
from sparta.engines.adapter_check import adapts_output
from sparta.engines.base import Completion, Inbox, ModelRef, Request
from sparta.engines.constrained_decoding import grammar_of
from sparta.engines.tokenizers import Tokenizers, first_line
from sparta.engines.vllm.instance import VllmBase
from sparta.engines.vllm.lora_capacity import LoraCapacity, lora_capacities
from sparta.engines.weights import adapter_name, check_model
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine
from sparta.store.records import FinishReason

_OTHERWISE = "set engine.kind to hf, for a run that has begun in a branch of it (--fork)"


@dataclass
class _UnderWay:
    request: Request
    began: float
    """What all requests together had cost when it was added: see `VllmEngine._share`."""


class VllmEngine:
    """See `sparta.engines.base.Engine`.

    A request's completion depends on the request alone, not on its company (up to the rounding of floating-point
    sums, which its company may change). Of a base's generation_config.json the end-of-sequence tokens are followed.
    A label request whose prompt fills the whole context is `prompt_too_long` here, and so is a continuation that ends with the context: vLLM
    always makes one more token.
    """

    def __init__(
        self,
        settings: recipe_engine.EngineSettings,
        trust_remote_code: bool = False,
        chat: ChatOptions = UNDATED,
    ) -> None:
        self.settings = settings
        self.trust_remote_code = trust_remote_code
        self.loads = 0
        self.load_seconds = 0.0
        self._open: VllmBase | None = None
        self._expected: dict[ModelRef, None] = {}
        self._rooms: dict[str, LoraCapacity] = {}
        self._tokenizers = Tokenizers(settings.context_length, trust_remote_code, chat)
        self._number = 0
        self._cost = 0.0

    def expect(self, models: Iterable[ModelRef]) -> None:
        """Room for adapters comes from these models; an open base without enough of it is loaded anew when it is asked next.

        Versions of a model are adapters of their own. One that is not expected any more goes when another is loaded and none of its requests
        is under way.
        """
        expected = dict.fromkeys(models)
        for model in expected:
            if model not in self._expected:
                check_model(model)
        self._rooms = lora_capacities(expected, self.settings.vllm)
        self._expected = expected

    def renderer(self, model: ModelRef) -> Renderer:
        """The renderer of the model's base. Raises SpartaError where the base is missing or cannot chat."""
        return self._tokenizers.renderer(model.base)

    def tokenizer_fingerprint(self, model: ModelRef) -> str:
        return self._tokenizers.fingerprint(model.base)

    def run(self, requests: Inbox) -> Iterator[Completion]:
        """Completions as they finish; twice as many requests as one batch holds are with vLLM, so that it never waits."""
        under_way: dict[str, _UnderWay] = {}
        waiting: deque[Request] = deque()
        try:
            while True:
                room = 2 * self.settings.vllm.sequences - len(under_way)
                if room > 0 and not waiting:
                    base = self._open.base if under_way and self._open else ""
                    waiting.extend(requests.take(room, base))
                if not waiting and not under_way:
                    return
                yield from self._admit(waiting, under_way)
                if under_way:
                    yield from self._step(under_way)
        finally:
            if under_way and self._open is not None:
                self._open.engine.abort_request(list(under_way))

    def close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()

    def _admit(self, waiting: deque[Request], under_way: dict[str, _UnderWay]) -> Iterator[Completion]:
        """Give vLLM what waits, up to a request for weights that can only be loaded when nothing is under way any more."""
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
            opened = self._ready(request.model, bool(under_way))
            if opened is None:
                return
            if request.continuation and not opened.weighs:
                raise SpartaError(
                    f"vLLM on a CPU cannot weigh choices with adapters on base {opened.base}: {_OTHERWISE}"
                )
            waiting.popleft()
            began = perf_counter()
            name = str(self._number)
            self._number += 1
            form = opened.forms.get(request.pattern)
            with self._at_work(opened):
                if opened.lacks(request.model):
                    asked = (done.request.model for done in under_way.values())
                    opened.keep(_adapters(self._expected) | _adapters(asked))
                lora = opened.lora(request.model)
                try:
                    parameters = _parameters(request, room, form)
                    tokens = {"type": "token", "prompt_token_ids": ids}
                    opened.engine.add_request(name, tokens, parameters, lora_request=lora)
                except (ValueError, VLLMClientError) as error:
                    raise SpartaError(
                        f"vLLM refuses a request for {request.model.name}: {first_line(error)}"
                    ) from error
            if request.pattern and form is None:
                opened.forms[request.pattern] = parameters.structured_outputs
            under_way[name] = _UnderWay(request, self._cost)
            self._share(began, len(under_way))

    def _ready(self, model: ModelRef, busy: bool) -> VllmBase | None:
        """vLLM with the model's base and room for its adapter, loaded if need be; None where it must become idle first."""
        if model not in self._expected:
            self.expect([*self._expected, model])
        opened, room = self._open, self._rooms[model.base]
        fits = (
            opened is not None
            and opened.base == model.base
            and opened.room.holds(room)
            and not opened.outdated(model)
        )
        if fits:
            return opened
        if busy:
            return None
        self.close()
        began = perf_counter()
        context = self.renderer(model).context_length
        self._open = VllmBase(model.base, room, context, self.settings, self.trust_remote_code)
        self.loads += 1
        self.load_seconds += perf_counter() - began
        return self._open

    def _step(self, under_way: dict[str, _UnderWay]) -> Iterator[Completion]:
        opened = self._open
        assert opened is not None
        began = perf_counter()
        with self._at_work(opened):
            outputs = opened.engine.step()
        self._share(began, len(under_way))
        for output in outputs:
            if output.finished:
                done = under_way.pop(output.request_id)
                yield self._completion(done, output)

    @contextmanager
    def _at_work(self, opened: VllmBase) -> Iterator[None]:
        """What vLLM fails with meanwhile closes it, and is told in words where these would help; a SpartaError is no failure of vLLM."""
        try:
            yield
        except SpartaError:
            raise
        except Exception as error:
            wrong = opened.failure(error)
            self.close()
            if wrong is not None:
                raise wrong from error
            raise

    def _share(self, began: float, sharing: int) -> None:
        """Count the seconds since `began`, of which each of the requests under way bears an equal part."""
        self._cost += (perf_counter() - began) / sharing

    def _completion(self, done: _UnderWay, output: Any) -> Completion:
        request, seconds = done.request, self._cost - done.began
        prompt_tokens = len(request.prompt.token_ids or ())
        made = output.outputs[0]
        if made.finish_reason not in ("stop", "length"):
            raise SpartaError(
                f"vLLM gave up a request for {request.model.name} ({made.finish_reason}): its log says why"
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
    """Raises SpartaError for a request that vLLM would refuse, before anything is loaded for it."""
    if request.continuation:
        if _adapts_output(request.model):
            raise SpartaError(
                f"model {request.model.name}: its adapter changes lm_head, for which vLLM gives wrong likelihoods: {_OTHERWISE}"
            )
        return
    hot = request.sampling.temperature
    if hot > recipe_engine.VLLM_HOTTEST and not request.labels:
        raise SpartaError(
            f"vLLM takes a temperature of at most {recipe_engine.VLLM_HOTTEST:g}, one of {hot:g} is asked of {request.model.name}: lower "
            f"generation.temperature or judging.temperature, or {_OTHERWISE}"
        )


@cache
def _adapts_output(model: ModelRef) -> bool:
    return model.adapter is not None and adapts_output(model.adapter)


def _parameters(request: Request, room: int, form: Any = None) -> Any:
    """vLLM's SamplingParams: the text is decoded by vLLM only where it has to look for stop strings in it.

    form: what vLLM made of the request's pattern before, so that it need not look at that again.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    if request.continuation or request.labels:
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            # 0 gives the log-probability of each token of the prompt itself and of no other. Such a request reads nothing from the prefix cache.
            prompt_logprobs=0 if request.continuation else None,
            logprob_token_ids=None if request.continuation else _tokens(request),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
    sampling, kind = request.sampling, SamplingParams
    if form is not None:
        from sparta.engines.vllm.grammar_cache import CachedGrammar

        kind = CachedGrammar
    elif request.pattern:
        form = StructuredOutputsParams(grammar=grammar_of(request.pattern))
    return kind(
        max_tokens=min(room, sampling.max_new_tokens),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=request.seed,
        stop=list(sampling.stop) or None,
        include_stop_str_in_output=True,
        detokenize=bool(sampling.stop),
        structured_outputs=form,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _log_likelihood(request: Request, logprobs: Any) -> float:
    """Of the continuation, in nats. logprobs: of each token that vLLM was given, the continuation's last."""
    ends = zip(request.continuation, logprobs[-len(request.continuation) :], strict=True)
    return fsum(position[token].logprob for token, position in ends)


def _label_probs(request: Request, logprobs: Any) -> tuple[float, ...]:
    """Probabilities of the labels, renormalised over them: vLLM's are shares of the whole vocabulary."""
    logs = [logprobs[token].logprob for token in _tokens(request)]
    most = max(logs)
    shares = [exp(log - most) for log in logs]
    total = sum(shares)
    return tuple(share / total for share in shares)


def _tokens(request: Request) -> list[int]:
    return [label.token for label in request.labels if label.token is not None]
