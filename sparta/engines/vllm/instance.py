"""One base on vLLM: opened with capacity for adapters, and closed without leaving anything behind."""

import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

from sparta.engines.adapter_load import misfit
from sparta.engines.base import ModelRef
from sparta.engines.fallbacks import fall_back
from sparta.engines.vllm.adapter_account import AdapterAccount
from sparta.engines.vllm.child_process import fail_with_child, run_engine_core
from sparta.engines.vllm.compile_cache import CompileCache, cache_key, compile_cache, one_compiles
from sparta.engines.vllm.cuda_graphs import compilation
from sparta.engines.vllm.errors import failed_to_compile, import_error, is_of_adapter, load_error, step_error
from sparta.engines.vllm.lora_capacity import LoraCapacity
from sparta.engines.vllm.quantisation import quantisation
from sparta.engines.vllm.start_stages import WAITING, stages_in, stages_noted
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError, first_line
from sparta.names import installed_by
from sparta.recipes import engine as recipe_engine


class VllmBase:
    """vLLM with one base and the adapters requested from `lora`. Opening takes seconds to minutes; call `close` at the end.

    context: tokens of prompt and completion together. compiled: folder for what vLLM compiles; None: vLLM's own. Where compiling fails, the base is
    opened without (`eager`), with a note. start_stages: seconds of its start, by stage.
    """

    def __init__(
        self,
        base: str,
        capacity: LoraCapacity,
        context: int,
        settings: recipe_engine.EngineSettings,
        trust_remote_code: bool,
        compiled: Path | None = None,
    ) -> None:
        self.base, self.capacity, self.settings = base, capacity, settings
        self.gpu = on_gpu(settings)
        self.eager = not self.gpu if settings.vllm.eager is None else settings.vllm.eager
        self._waited = 0.0
        own = settings.vllm.own_process
        self._own_process = self.gpu if own is None else own
        self._full: str | None = None
        self._loras: dict[str, Any] = {}
        self.grammars: dict[str, Any] = {}
        """By pattern, the `structured_outputs` of a request that vLLM has accepted."""
        self._ids = count(1)
        self._folder = tempfile.TemporaryDirectory(prefix="sparta-vllm-")
        self._report = Path(self._folder.name) / "report"
        self._stages = Path(self._folder.name) / "stages"
        try:
            self.engine = self._opened_somehow(context, trust_remote_code, compiled)
        except Exception as error:
            report = self._child_report()
            self._clean()
            if explained := load_error(error, report, base, settings, self.gpu):
                raise explained from error
            _note(error, f"vLLM was loading base {base}", report)
            raise
        self.start_stages = stages_in(self._stages)
        if self._waited >= 1:
            self.start_stages[WAITING] = self._waited
        if self._own_process:
            fail_with_child(self.engine.engine_core)

    def lora(self, model: ModelRef) -> Any:
        """vLLM's LoRARequest for the model's adapter, loaded if it is new; None for a full model.

        vLLM keys its caches by the adapter's name, so each version has its own name and number.
        """
        if model.adapter is None:
            self._full = model.version
            return None
        name = adapter_name(model)
        if (known := self._loras.get(name)) is not None:
            return known
        from vllm.lora.request import LoRARequest

        request = LoRARequest(name, next(self._ids), str(model.adapter))
        try:
            self.engine.add_lora(request)
        except Exception as error:
            if not is_of_adapter(error):
                raise
            raise SpartaError(
                f"adapter {model.adapter} of {model.name} cannot be loaded on base {model.base}: {first_line(error)}"
            ) from error
        method = AdapterAccount.adapter_parts_without_module.__name__
        answers = self.engine.collective_rpc(method, args=(request.lora_int_id,))
        if ignored := sorted({part for answer in answers for part in answer}):
            self.engine.remove_lora(request.lora_int_id)
            raise SpartaError(f"model {model.name}: {misfit(model.adapter, model.base, [], ignored)}")
        self._loras[name] = request
        return request

    def lacks(self, model: ModelRef) -> bool:
        """Whether the model's adapter is not loaded yet."""
        return model.adapter is not None and adapter_name(model) not in self._loras

    def keep(self, names: Collection[str]) -> None:
        """Remove all adapters except these (by `adapter_name`); no request for a removed one may be in flight."""
        for name in self._loras.keys() - names:
            self.engine.remove_lora(self._loras.pop(name).lora_int_id)

    def outdated(self, model: ModelRef) -> bool:
        """Whether the loaded weights are another version of this full model."""
        return model.adapter is None and self._full not in (None, model.version)

    @cached_property
    def scores_likelihoods(self) -> bool:
        """Whether log-likelihoods work: on a CPU, vLLM 0.32 fails on them for models whose lm_head may have adapters, such as Llama.

        The cause is that of vllm-project/vllm#51594: adapters for all of a prompt's logits are looked up in a table with one entry per request.
        """
        if self.gpu or not self.capacity.rank:
            return True
        from vllm.model_executor.models import ModelRegistry

        config = self.engine.vllm_config.model_config
        kind, _ = ModelRegistry.resolve_model_cls(config.architectures, config)
        return "lm_head" not in getattr(kind, "embedding_modules", {})

    def failure(self, error: Exception) -> SpartaError | None:
        """The explanation of `error`, which was raised while requests were in flight; None, and a note added to `error`, if another node may not fail."""
        report = self._child_report()
        if explained := step_error(error, report, self.base, self.settings):
            return explained
        _note(error, f"vLLM was processing requests to base {self.base}", report)
        return None

    def close(self) -> None:
        with suppress(Exception):  # The process may be dead already.
            self.engine.renderer.shutdown()
        with suppress(Exception):
            self.engine.engine_core.shutdown()
        del self.engine
        self._clean()

    def _child_report(self) -> str:
        return self._report.read_text(encoding="utf-8") if self._report.is_file() else ""

    def _clean(self) -> None:
        self._folder.cleanup()
        self._end_in_process()

    def _end_in_process(self) -> None:
        gc.collect()
        if not self._own_process:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()

    def _opened_somehow(self, context: int, trust_remote_code: bool, compiled: Path | None) -> Any:
        """vLLM as the recipe asks, or without compiling where that fails."""
        try:
            return self._opened(context, trust_remote_code, compiled)
        except Exception as error:
            why = None if self.eager else self._why_not_compiled(error)
            if why is None:
                raise
        # Outside of `except`, whose traceback keeps the weights in memory.
        self.eager = True
        self._report.unlink(missing_ok=True)
        self._end_in_process()
        opened = self._opened(context, trust_remote_code, compiled)
        fall_back(
            f"vLLM could not compile for base {self.base} and runs without compiling and CUDA graphs, which is slower ({why}): if a compiler is missing, "
            "load one in the profile's setup (such as `module load gcc`)"
        )
        return opened

    def _opened(self, context: int, trust_remote_code: bool, compiled: Path | None) -> Any:
        from vllm import EngineArgs, LLMEngine

        arguments = self._arguments(context, trust_remote_code)
        threads = None if self.gpu else self.settings.threads
        with environment(self._variables()), _threads(threads), self._watched():
            cache = self._cache(arguments, compiled)
            with environment(cache.variables if cache else {}):
                if cache is None or self.eager:
                    return LLMEngine.from_engine_args(EngineArgs(model=self.base, **arguments))
                with one_compiles(
                    cache, lambda error: self._why_not_compiled(error) is not None
                ) as self._waited:
                    return LLMEngine.from_engine_args(EngineArgs(model=self.base, **arguments))

    def _why_not_compiled(self, error: Exception) -> str | None:
        """Why compiling failed; None if something else did."""
        return failed_to_compile(error, self._child_report(), self._own_process)

    def _cache(self, arguments: Mapping[str, Any], compiled: Path | None) -> CompileCache | None:
        """Where this start keeps what it compiles; None if it compiles nothing. On a CPU vLLM 0.32 never compiles for adapters."""
        if not self.gpu and (self.eager or self.capacity.rank):
            return None
        spare = Path(self._folder.name) / "cache"
        fell_back = self.eager and not self.settings.vllm.eager
        if fell_back:  # The shared folder may be what failed.
            return CompileCache(spare, False)
        return compile_cache(compiled, spare, cache_key(self.base, arguments))

    def _arguments(self, context: int, trust_remote_code: bool) -> dict[str, Any]:
        """Of EngineArgs, without the model."""
        vllm, capacity = self.settings.vllm, self.capacity
        arguments: dict[str, Any] = {
            **quantisation(self.base, self.settings, self.gpu),
            "max_model_len": context,
            "trust_remote_code": trust_remote_code,
            "load_format": "safetensors",
            # A base may ship sampling defaults; only the recipe decides how to decode.
            "generation_config": "vllm",
            "tensor_parallel_size": vllm.tensor_parallel,
            "gpu_memory_utilization": vllm.memory_share,
            "max_num_seqs": vllm.sequences,
            "max_num_batched_tokens": max(vllm.prefill_tokens, vllm.sequences),
            "enable_prefix_caching": vllm.prefix_caching,
            "enforce_eager": self.eager,
            # The same backend as HfEngine's, so that a pattern means the same in both.
            "structured_outputs_config": {"backend": "guidance"},
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if not self.gpu:
            arguments["kv_cache_memory_bytes"] = int(vllm.cpu_cache_gib * 2**30)
            # On a CPU, vLLM 0.32 fails if the prompt of a request with a seed is processed in two chunks.
            arguments["enable_chunked_prefill"] = False
            arguments["max_num_batched_tokens"] = max(arguments["max_num_batched_tokens"], context)
        if self.gpu and not self.eager:
            arguments["compilation_config"] = compilation(vllm.sequences, bool(capacity.rank))
        if vllm.speculative is not None:
            arguments["speculative_config"] = {
                "method": vllm.speculative.method,
                "num_speculative_tokens": vllm.speculative.tokens,
            }
        if capacity.rank:
            arguments |= {
                "enable_lora": True,
                "max_lora_rank": capacity.rank,
                "max_loras": capacity.mixed,
                "max_cpu_loras": max(capacity.kept, capacity.mixed),
                "worker_extension_cls": f"{AdapterAccount.__module__}.{AdapterAccount.__qualname__}",
            }
        return arguments

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside the context, an engine notes the stages of its start, in a process of its own too: that runs `child_process.run_engine_core`, so
        it ends with this one.
        """
        from vllm.v1.engine.core import EngineCoreProc

        original = EngineCoreProc.run_engine_core
        EngineCoreProc.run_engine_core = partial(run_engine_core, str(self._report), str(self._stages))
        try:
            with stages_noted(self._stages):
                yield
        finally:
            EngineCoreProc.run_engine_core = staticmethod(original)

    def _variables(self) -> dict[str, str | None]:
        variables: dict[str, str | None] = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(self._own_process)),
            # A fork would inherit the locks of this process's threads.
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_LOGGING_LEVEL": _log_level(self.gpu),
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "PYTHONWARNINGS": "ignore",
            **_QUIET,
        }
        if not self.gpu:
            import torch

            # Pinned threads would compete for their cores with the node's other tasks.
            variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
            variables["OMP_NUM_THREADS"] = str(self.settings.threads or torch.get_num_threads())
            variables["VLLM_CPU_KVCACHE_SPACE"] = None  # It would override the recipe.
        return variables


def _note(error: Exception, what: str, report: str) -> None:
    """Add to `error`, for the log, what vLLM was doing and the report of its process, if there is one."""
    error.add_note(f"{what}; its process reported: {report}" if report else what)


_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _log_level(gpu: bool) -> str:
    """The log level of vLLM: on a CPU only errors, because users cannot act on its warnings there."""
    return os.environ.get("VLLM_LOGGING_LEVEL", "WARNING" if gpu else "ERROR")


def on_gpu(settings: recipe_engine.EngineSettings) -> bool:
    """Whether the vllm installed here runs on a GPU. Raises SpartaError if it has no device, or not the one that engine.device asks for."""
    with environment({"VLLM_LOGGING_LEVEL": _log_level(False), **_QUIET}):
        try:
            from vllm.platforms import current_platform
        except ImportError as error:
            raise import_error(error) from error
    gpu = not current_platform.is_cpu()
    if current_platform.is_unspecified():
        raise SpartaError("vLLM finds no GPU here: run on a machine with one, or set engine.kind to hf")
    if settings.device == "cuda" and not gpu:
        raise SpartaError(
            "engine.device asks for a GPU, but the vllm installed here runs on CPUs: set engine.device to auto, "
            f"or {installed_by('gpu')} on a machine with a GPU"
        )
    if settings.device == "cpu" and gpu:
        raise SpartaError(
            "engine.device is cpu, but the vllm installed here runs on GPUs: set engine.kind to hf, or engine.device to auto"
        )
    logging.getLogger("vllm").setLevel(_log_level(gpu))
    return gpu


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set these environment variables, or unset those that are None; on exit, restore the whole environment."""
    before = dict(os.environ)
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def _threads(requested: int | None) -> Iterator[None]:
    """Set torch's number of threads, inside the context and after it. On a CPU vLLM replaces torch.set_num_threads; this restores it for training."""
    import torch

    function = torch.set_num_threads
    threads = requested or torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads = function
        torch.set_num_threads(threads)
