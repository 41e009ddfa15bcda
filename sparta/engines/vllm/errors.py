"""What an error of vLLM means to whoever wrote the recipe: one sentence with the settings to change.

A SpartaError stops the whole run, so there is one only for what would happen on any node: memory, files, settings. A dead process or
a failing GPU is told as it is, and its work is dealt out again.
"""

import re

from sparta.engines.tokenizers import first_line
from sparta.errors import SpartaError
from sparta.names import installed_by
from sparta.recipes import engine as recipe_engine

_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError|Free memory on device", re.IGNORECASE)
_NO_CACHE = re.compile(r"KV\s*cache\s+is needed|No available memory for the cache|requested memory for kv")
_OF_THIS_NODE = re.compile(
    r"CUDA error|CUDA driver|\bECC\b|NCCL|CUBLAS|CUDNN|device-side|\[Errno|shutting down|EngineCore encountered",
    re.IGNORECASE,
)
"""Of a GPU, a driver, a disk as it is mounted here, or of a process that is gone."""
_MISFITS = {
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
"""Names of the errors by which vLLM, transformers and safetensors say that files or settings do not fit."""
_WRONG_SHAPE = re.compile(r"load weight|size mismatch|must match|unexpected shape", re.IGNORECASE)


def import_error(error: ImportError) -> SpartaError:
    """Why vllm cannot be imported: it is not there, or lacks something itself."""
    what = "is not installed" if error.name == "vllm" else f"cannot be imported ({first_line(error)})"
    return SpartaError(f"the engine is vllm, which {what}: {installed_by('gpu')}, or set engine.kind to hf")


def load_error(
    error: BaseException, said: str, base: str, settings: recipe_engine.EngineSettings, gpu: bool
) -> SpartaError | None:
    """Why `base` could not be loaded; None where another node may well load it.

    said: what vLLM's own process left behind, the name of its error first; "" where there is none.
    """
    whole, vllm = f"{type(error).__name__}: {error}\n{said}", settings.vllm
    if _NO_CACHE.search(whole):
        remedy = (
            f"raise engine.vllm.memory_share, now {vllm.memory_share:g}"
            if gpu
            else f"set engine.vllm.cpu_cache_gib, now {vllm.cpu_cache_gib:g}, to what is free here and enough"
        )
        return SpartaError(
            f"base {base}: the memory for keys and values does not hold one text of engine.context_length tokens, "
            f"now {settings.context_length}: lower that, or {remedy}"
        )
    if _OUT_OF_MEMORY.search(whole):
        return SpartaError(
            f"base {base} does not fit into the GPU's free memory: raise engine.vllm.tensor_parallel, now "
            f"{vllm.tensor_parallel}, lower engine.context_length, now {settings.context_length}, or, where "
            f"something else uses the GPU too, engine.vllm.memory_share, now {vllm.memory_share:g}"
        )
    if _misfit(error, said):
        return SpartaError(f"vLLM cannot load base {base}: {_cause(error, said)}")
    return None


def step_error(
    error: BaseException, said: str, base: str, settings: recipe_engine.EngineSettings
) -> SpartaError | None:
    """Why requests under way could not be completed; None where another node may well complete them."""
    whole, vllm = f"{type(error).__name__}: {error}\n{said}", settings.vllm
    if _OUT_OF_MEMORY.search(whole):
        return SpartaError(
            f"the GPU's memory did not last for requests to base {base}: lower engine.vllm.memory_share, now "
            f"{vllm.memory_share:g}, engine.vllm.sequences, now {vllm.sequences}, or engine.vllm.prefill_tokens, "
            f"now {vllm.prefill_tokens}, or raise engine.vllm.tensor_parallel, now {vllm.tensor_parallel}"
        )
    return None


def is_of_adapter(error: BaseException) -> bool:
    """Whether an adapter was refused for what it is: vLLM lives, has memory, and a GPU and disks that work.

    Of an error in its own process vLLM keeps the message alone.
    """
    whole = f"{type(error).__name__}: {error}"
    return not (_OUT_OF_MEMORY.search(whole) or _OF_THIS_NODE.search(whole))


def _misfit(error: BaseException, said: str) -> bool:
    """Whether files or settings do not fit, which is the same on every node."""
    kinds = {said.partition(":")[0]} if said else {kind.__name__ for kind in type(error).__mro__}
    told = said or str(error)
    return not _OF_THIS_NODE.search(told) and bool(kinds & _MISFITS or _WRONG_SHAPE.search(told))


def _cause(error: BaseException, said: str) -> str:
    """The first line of what happened; of a process that ended without a word, its own log knows more."""
    if said:
        return next((line.strip() for line in said.splitlines() if line.strip()), said)
    return first_line(error)
