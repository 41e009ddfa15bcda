"""Whether what a recipe asks of training works on the device that a run trains on, and that of engines with the libraries there. Checked before anything starts."""

from collections.abc import Collection

from sparta.engines.load_options import require_bitsandbytes, require_flash_attention, require_liger
from sparta.engines.small_base import settled
from sparta.engines.vllm.quantisation import require_vllm_plugin
from sparta.errors import SpartaError
from sparta.recipes.engine import EngineSettings
from sparta.recipes.schema import Recipe
from sparta.training.loading import resolve_device


def check_on_cpu(recipe: Recipe, why: str) -> None:
    """Raises SpartaError if `recipe` asks of training what only a GPU can do. why: it trains on a CPU, as a clause."""
    if recipe.engine.kind == "scripted":
        return
    dpo, sft = recipe.dpo, recipe.pool.sft
    remedies = {
        f"engine.quantize {recipe.engine.quantize}": (
            recipe.engine.quantize is not None,
            "leave it out: training with a base in 4 bits needs a GPU",
        ),
        "engine.attention flash_attention_2": (
            recipe.engine.attention == "flash_attention_2",
            "set it to auto: it has no kernel for CPUs",
        ),
        "dpo.liger": (dpo.liger, "set it to false: Liger's kernels need a GPU"),
        "dpo.optimizer paged_adamw_8bit": (
            dpo.optimizer == "paged_adamw_8bit",
            "set it to adamw_8bit or adamw: only memory of a GPU is paged",
        ),
        "pool.sft.optimizer paged_adamw_8bit": (
            bool(recipe.pool.experts) and sft.optimizer == "paged_adamw_8bit",
            "set it to adamw_8bit or adamw: only memory of a GPU is paged",
        ),
    }
    for setting, (is_set, remedy) in remedies.items():
        if is_set:
            raise SpartaError(f"{setting} cannot be used, because {why}: {remedy}")


def check_task(recipe: Recipe, device: str) -> None:
    """`check_on_cpu` if a training with this engine.device, about to begin in this process, works on the CPU."""
    if recipe.engine.kind != "scripted" and resolve_device(device) == "cpu":
        check_on_cpu(recipe, "this task trains on a CPU")


def check_engine_libraries(settings: EngineSettings, key: str, bases: Collection[str], has_gpu: bool) -> None:
    """Raises SpartaError if a library is not installed here that an engine needs. key: where the recipe has `settings`. bases: folders that it serves."""
    if settings.quantize is None and settings.attention != "flash_attention_2":
        return
    engine = settled(settings, bases)
    if engine.kind in ("scripted", "api"):
        return
    is_vllm = engine.kind == "vllm" or (engine.kind == "auto" and has_gpu and engine.device != "cpu")
    if engine.quantize is not None:
        why = f"{key}.quantize is {engine.quantize}"
        require_bitsandbytes(why)
        if is_vllm:
            require_vllm_plugin(why)
    # vLLM chooses its own.
    if engine.attention == "flash_attention_2" and not is_vllm:
        require_flash_attention(f"{key}.attention")


def check_libraries(recipe: Recipe) -> None:
    """Raises SpartaError if a library is not installed here that trainings of `recipe` need."""
    if recipe.engine.kind == "scripted":
        return
    needing = {
        "engine.quantize": recipe.engine.quantize,
        "dpo.optimizer": recipe.dpo.optimizer,
        "pool.sft.optimizer": recipe.pool.sft.optimizer if recipe.pool.experts else "adamw",
    }
    for key, value in needing.items():
        if value not in (None, "adamw"):
            require_bitsandbytes(f"{key} is {value}")
    if recipe.engine.attention == "flash_attention_2":
        require_flash_attention()
    if recipe.dpo.liger:
        require_liger()
