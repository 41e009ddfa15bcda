"""Error messages when vLLM cannot work: they name the setting to change. Needs no vllm."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny_models
from support.engine_contract import GREEDY, ref, request, settings, weighing

from sparta.engines.adapter_check import adapts_output
from sparta.engines.base import Inbox
from sparta.engines.vllm.engine import VllmEngine
from sparta.engines.vllm.errors import failed_to_compile, import_error, is_of_adapter, load_error, step_error
from sparta.engines.vllm.instance import on_gpu
from sparta.engines.vllm.lora_capacity import LoraCapacity, lora_capacities
from sparta.errors import SpartaError
from sparta.recipes.engine import Vllm
from sparta.recipes.schema import Recipe

# As vLLM 0.32 words them.
NO_CACHE = ValueError(
    "To serve at least one request with the model's max seq len (4096), (4.0 GiB KV cache is needed, which is larger "
    "than the available KV cache memory (1.0 GiB). Try increasing `gpu_memory_utilization`"
)
NO_BLOCKS = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
NO_MEMORY = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
TAKEN = "ValueError: Free memory on device cuda:0 (3.1/39.4 GiB) on startup is less than desired GPU memory utilization"
DEAD = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


@pytest.mark.parametrize(
    ("error", "report", "gpu", "settings_named"),
    [
        (NO_CACHE, "", True, ["engine.context_length", "engine.vllm.memory_share"]),
        (NO_CACHE, "", False, ["engine.context_length", "engine.vllm.cpu_cache_gib"]),
        (DEAD, NO_BLOCKS, True, ["engine.context_length", "engine.vllm.memory_share"]),
        (DEAD, NO_MEMORY, True, ["engine.vllm.tensor_parallel", "engine.context_length"]),
        (DEAD, TAKEN, True, ["engine.vllm.memory_share"]),
    ],
)
def test_a_load_error_names_what_to_change(
    error: Exception, report: str, gpu: bool, settings_named: list[str]
) -> None:
    sentence = str(load_error(error, report, "some/base", settings(), gpu))
    assert all(name in sentence for name in ["some/base", *settings_named])
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "report",
    [
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
        "InvalidCxxCompiler: No working C++ compiler found",
    ],
)
def test_a_node_without_a_compiler_is_named(report: str) -> None:
    for error in (
        load_error(DEAD, report, "some/base", settings(), True),
        step_error(RuntimeError(report), "", "some/base", settings()),
    ):
        assert "no C compiler on this node" in str(error) and "setup" in str(error)
    assert not is_of_adapter(RuntimeError(report))


@pytest.mark.parametrize(
    ("error", "report", "own_process", "why"),
    [
        (
            DEAD,
            "RuntimeError: Failed to find C compiler.\nmore",
            True,
            "RuntimeError: Failed to find C compiler.",
        ),
        (
            DEAD,
            "InductorError: CppCompileError: C++ compile error",
            True,
            "InductorError: CppCompileError: C++ compile error",
        ),
        (
            DEAD,
            "OSError: [Errno 28] No space left on device",
            True,
            "OSError: [Errno 28] No space left on device",
        ),
        (
            DEAD,
            "Exception: WorkerProc initialization failed",
            True,
            "Exception: WorkerProc initialization failed",
        ),
        (RuntimeError("ptxas fatal"), "", False, "ptxas fatal"),
        (DEAD, "", True, None),
        (DEAD, NO_MEMORY, True, None),
        (DEAD, NO_BLOCKS, True, None),
        (DEAD, "KeyError: 'layers.0.weight'", True, None),
        (DEAD, "RuntimeError: CUDA error: an illegal memory access", True, None),
    ],
)
def test_what_may_work_without_compiling_is_tried_so(
    error: Exception, report: str, own_process: bool, why: str | None
) -> None:
    assert failed_to_compile(error, report, own_process) == why


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (DEAD, "KeyError: 'layers.0.weight'\nmore"),
        (KeyError("layers.0.weight"), ""),
        (DEAD, "SafetensorError: header too large"),
        (DEAD, "AssertionError: Attempted to load weight (torch.Size([8])) into parameter (torch.Size([4]))"),
        (RuntimeError("The size of tensor a (8) must match the size of tensor b (4)"), ""),
    ],
)
def test_an_invalid_file_is_reported_with_the_error_of_the_process(error: Exception, report: str) -> None:
    sentence = str(load_error(error, report, "some/base", settings(), True))
    first = report.splitlines()[0] if report else str(error)
    assert sentence == f"vLLM cannot load base some/base: {first}"


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (DEAD, ""),
        (DEAD, "AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
        (DEAD, "RuntimeError: NCCL error: unhandled system error"),
        (
            DEAD,
            "AssertionError: Error in memory profiling. Initial free memory 3 GiB, current free memory 4 GiB",
        ),
        (DEAD, "OSError: [Errno 116] Stale file handle: 'model.safetensors'"),
        (RuntimeError("EngineCore encountered an issue. See stack trace (above) for the root cause."), ""),
        (RuntimeError("what"), ""),
    ],
)
def test_a_failure_of_one_node_does_not_stop_the_run(error: Exception, report: str) -> None:
    assert load_error(error, report, "some/base", settings(), True) is None
    assert step_error(error, report, "some/base", settings()) is None


def test_an_adapter_is_blamed_only_for_its_own_faults() -> None:
    assert is_of_adapter(ValueError("LoRA rank 64 is greater than max_lora_rank 16."))
    assert is_of_adapter(Exception("Call to add_lora method failed: expected target modules in ['q_proj']"))
    for message in (
        "Call to add_lora method failed: CUDA error: uncorrectable ECC error encountered",
        "Call to add_lora method failed: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "Call to add_lora method failed: [Errno 116] Stale file handle",
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "Server shutting down",
    ):
        assert not is_of_adapter(Exception(message)), message


def test_a_temperature_above_vllms_is_refused_before_anything_is_loaded(tiny_base: Path) -> None:
    pool = {"base": "b", "models": [{"name": name, "adapter": name} for name in "abc"]}
    config = {"name": "hot", "pool": pool, "data": {"task": "toy"}}
    for section in ("generation", "judging"):
        hot = {**config, section: {"temperature": 3}}
        Recipe.model_validate(hot)
        with pytest.raises(ValueError, match=rf"at most 2, {section}.temperature is 3: lower it"):
            Recipe.model_validate({**hot, "engine": {"kind": "vllm"}})
    Recipe.model_validate({**config, "generation": {"temperature": 2}, "engine": {"kind": "vllm"}})

    engine, model = VllmEngine(settings()), ref("a", tiny_base, None)
    asked = request(engine, model, "1", replace(GREEDY, temperature=3.0))
    with pytest.raises(SpartaError, match=r"up to 2, but a is to sample at 3: lower generation.temperature"):
        list(engine.run(Inbox([asked])))
    assert engine.loads == 0


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_only_hf_scores_log_likelihoods_with_an_adapter_of_lm_head(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.32 looks up the adapter of a whole prompt's logits in a table with one entry per request."""
    assert not adapts_output(tiny_adapters["ada"])
    monkeypatch.setattr(tiny_models, "TARGETS", ["q_proj", "lm_head"])
    model = ref("head", tiny_base, tiny_models.make_adapter(tmp_path / "head", tiny_base, seed=1))
    engine = VllmEngine(settings())
    with pytest.raises(SpartaError, match=r"model head: its adapter changes lm_head.* set engine.kind to hf"):
        list(engine.run(Inbox([weighing(engine, model, "1", "yes", True)])))
    assert engine.loads == 0


def test_a_step_without_memory_names_what_to_lower() -> None:
    sentence = str(step_error(RuntimeError("EngineCore encountered an issue"), NO_MEMORY, "b", settings()))
    assert all(
        name in sentence for name in ("memory_share", "sequences", "prefill_tokens", "tensor_parallel")
    )


def test_a_missing_vllm_names_its_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setitem(sys.modules, "vllm.platforms", None)
    with pytest.raises(SpartaError, match=r"vllm, which .*requirements/gpu.txt, or set engine.kind to hf"):
        on_gpu(settings())
    assert "which is not installed" in str(
        import_error(ModuleNotFoundError("No module named 'vllm'", name="vllm"))
    )
    assert "cannot be imported (no libcuda)" in str(import_error(ImportError("no libcuda")))


def adapter_of(folder: Path, **changes: object) -> Path:
    """The settings of an adapter, without its weights."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "bias": "none", **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_the_capacity_is_for_the_largest_rank_rounded_up_as_vllm_does(tmp_path: Path) -> None:
    models = [
        ref("a", tmp_path / "x", adapter_of(tmp_path / "a", r=4)),
        ref("b", tmp_path / "x", adapter_of(tmp_path / "b", r=4, rank_pattern={"q_proj": 12})),
        ref("c", tmp_path / "x", None),
        ref("d", tmp_path / "y", None),
    ]
    x, y = str(tmp_path / "x"), str(tmp_path / "y")
    assert lora_capacities(models, Vllm()) == {x: LoraCapacity(16, 2, 2), y: LoraCapacity()}
    assert lora_capacities(models[:1], Vllm())[x] == LoraCapacity(8, 1, 1)
    assert lora_capacities(models, Vllm(max_rank=40, adapters_at_once=1))[x] == LoraCapacity(64, 1, 2)
    versions = [replace(models[0], version=str(number)) for number in range(50)]
    assert lora_capacities(versions, Vllm())[x] == LoraCapacity(8, 10, 32), (
        "every version is an adapter, and not all stay in memory"
    )
    copies = [replace(models[0], name=f"a-{number}") for number in range(2, 7)]
    assert lora_capacities([*models, *copies], Vllm())[x] == LoraCapacity(16, 2, 2), (
        "the same weights are one adapter"
    )
    assert LoraCapacity(16, 2, 2).covers(LoraCapacity(8, 2, 9))
    assert not LoraCapacity(16, 2, 2).covers(LoraCapacity(8, 3, 3))
    assert not LoraCapacity().covers(LoraCapacity(8, 1, 1))


def test_an_adapter_above_max_rank_is_refused_with_both_ranks(tmp_path: Path, tiny_base: Path) -> None:
    folder = tiny_models.make_adapter(tmp_path / "a", tiny_base, seed=1, rank=12)
    engine = VllmEngine(settings(vllm={"max_rank": 8}))
    with pytest.raises(
        SpartaError, match=r"model a: its adapter has rank 12, .* engine.vllm.max_rank, which is 8"
    ):
        engine.expect([ref("a", tiny_base, folder)])
    assert engine.loads == 0


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}])
def test_kinds_of_adapters_that_vllm_does_not_support_are_refused(
    tmp_path: Path, kind: dict[str, object]
) -> None:
    model = ref("a", tmp_path, adapter_of(tmp_path / "a", **kind))
    with pytest.raises(SpartaError, match=rf"model a: .* {next(iter(kind))}, which vLLM does not support"):
        lora_capacities([model], Vllm())
