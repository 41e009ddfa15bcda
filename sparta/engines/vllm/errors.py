"""Translates errors of vLLM into one sentence that names the settings to change.

A SpartaError stops the whole run, so only failures that would recur on any node become one: memory, files, settings. A dead process or
a failing GPU is raised unchanged, and its work is assigned again.
"""

import re

from sparta.errors import SpartaError, first_line
from sparta.names import installed_by
from sparta.recipes import engine as recipe_engine

_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError|Free memory on device", re.IGNORECASE)
_NO_COMPILER = re.compile(r"Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler")
_NO_CACHE = re.compile(r"KV\s*cache\s+is needed|No available memory for the cache|requested memory for kv")
_GPU = r"CUDA error|CUDA driver|\bECC\b|NCCL|CUBLAS|CUDNN|device-side|shutting down"
_OF_THIS_GPU = re.compile(_GPU, re.IGNORECASE)
_OF_THIS_NODE = re.compile(rf"{_GPU}|\[Errno|EngineCore encountered", re.IGNORECASE)
"""Failures of this node: its GPU, driver or disk, or a process that died."""
_INVALID_INPUT = {
    "ValueError",
    "ValidationError",
    "VLLMValidationError",
    "KeyError",
    "OSError",
    "SafetensorError",
    "JSONDecodeError",
    "NotImplementedError",
    "ModuleNotFoundError",
}
"""Errors that vLLM, transformers and safetensors raise for invalid files or settings."""
_WRONG_SHAPE = re.compile(r"load weight|size mismatch|must match|unexpected shape", re.IGNORECASE)


def import_error(error: ImportError) -> SpartaError:
    """Why vllm cannot be imported: it is not installed, or one of its own imports fails."""
    what = "is not installed" if error.name == "vllm" else f"cannot be imported ({first_line(error)})"
    return SpartaError(f"the engine is vllm, which {what}: {installed_by('gpu')}, or set engine.kind to hf")


def load_error(
    error: BaseException, report: str, base: str, settings: recipe_engine.EngineSettings, gpu: bool
) -> SpartaError | None:
    """Why `base` could not be loaded; None if it may load on another node.

    report: the error that vLLM's own process reported, its class name first; "" if there is none.
    """
    whole, vllm = f"{type(error).__name__}: {error}\n{report}", settings.vllm
    if _NO_CACHE.search(whole):
        remedy = (
            f"raise engine.vllm.memory_share, now {vllm.memory_share:g}"
            if gpu
            else f"raise engine.vllm.cpu_cache_gib, now {vllm.cpu_cache_gib:g}, within the free memory"
        )
        return SpartaError(
            f"base {base}: the KV cache does not hold one sequence of engine.context_length tokens, "
            f"now {settings.context_length}: lower that, or {remedy}"
        )
    if _NO_COMPILER.search(whole):
        return _no_compiler()
    if _OUT_OF_MEMORY.search(whole):
        return SpartaError(
            f"base {base} does not fit in the GPU's free memory: raise engine.vllm.tensor_parallel, now "
            f"{vllm.tensor_parallel}, lower engine.context_length, now {settings.context_length}, or, if "
            f"another process uses the GPU too, engine.vllm.memory_share, now {vllm.memory_share:g}"
        )
    if _is_invalid_input(error, report):
        return SpartaError(f"vLLM cannot load base {base}: {_cause(error, report)}")
    return None


def step_error(
    error: BaseException, report: str, base: str, settings: recipe_engine.EngineSettings
) -> SpartaError | None:
    """Why requests in flight could not be completed; None if another node may complete them."""
    whole, vllm = f"{type(error).__name__}: {error}\n{report}", settings.vllm
    if _NO_COMPILER.search(whole):
        return _no_compiler()
    if _OUT_OF_MEMORY.search(whole):
        return SpartaError(
            f"the GPU ran out of memory on requests to base {base}: lower engine.vllm.memory_share, now "
            f"{vllm.memory_share:g}, engine.vllm.sequences, now {vllm.sequences}, or engine.vllm.prefill_tokens, "
            f"now {vllm.prefill_tokens}, or raise engine.vllm.tensor_parallel, now {vllm.tensor_parallel}"
        )
    return None


def failed_to_compile(error: BaseException, report: str, own_process: bool) -> str | None:
    """The first line of why vLLM could not be opened, if it may open without compiling; None if that would fail, too.

    That is asked of everything but memory, invalid input, a broken GPU and a killed process, because a compiler fails in too many ways to list
    (torch, Triton, ptxas, gcc, the disk), and of an error in vLLM's worker processes no cause is left. report: as in `load_error`.
    """
    whole = f"{type(error).__name__}: {error}\n{report}"
    if own_process and not report:
        return None
    if _OUT_OF_MEMORY.search(whole) or _NO_CACHE.search(whole) or _OF_THIS_GPU.search(whole):
        return None
    return None if _is_invalid_input(error, report) else _cause(error, report)


def _no_compiler() -> SpartaError:
    return SpartaError(
        "vLLM finds no C compiler on this node, and its kernels (such as those of adapters) need one even where the model is not compiled: load one in "
        "the profile's setup (such as `module load gcc`), or add the node to the profile's exclude"
    )


def is_of_adapter(error: BaseException) -> bool:
    """Whether the adapter itself caused the error, rather than memory or a failure of this node.

    The class is no help: of an error in its own process vLLM keeps only the message.
    """
    whole = f"{type(error).__name__}: {error}"
    return not any(kind.search(whole) for kind in (_OUT_OF_MEMORY, _OF_THIS_NODE, _NO_COMPILER))


def _is_invalid_input(error: BaseException, report: str) -> bool:
    """Whether files or settings are invalid, which is the same on every node."""
    kinds = {report.partition(":")[0]} if report else {kind.__name__ for kind in type(error).__mro__}
    message = report or str(error)
    return not _OF_THIS_NODE.search(message) and bool(kinds & _INVALID_INPUT or _WRONG_SHAPE.search(message))


def _cause(error: BaseException, report: str) -> str:
    """The first line of the report, else of the error."""
    if report:
        return next((line.strip() for line in report.splitlines() if line.strip()), report)
    return first_line(error)
