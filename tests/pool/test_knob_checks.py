"""What a recipe asks of training is refused where it cannot work, before anything starts: on a CPU, or without the library."""

from pathlib import Path
from typing import Any

import pytest
from support.openings import planned
from support.scripted_run import typed

from sparta.cluster import gpus
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.commands.begin import prepare_begin
from sparta.engines import load_options
from sparta.engines.vllm import quantisation
from sparta.errors import SpartaError
from sparta.evaluation.grade import GradeAnswers
from sparta.methods.registry import phases_of
from sparta.pool.knob_checks import check_engine_libraries, check_libraries, check_on_cpu, check_task
from sparta.recipes.engine import EngineSettings
from sparta.recipes.load import load
from sparta.store.layout import StateDir

GPU_ALONE = {
    "engine.quantize=nf4": r"engine.quantize nf4 .*leave it out: training with a base in 4 bits needs a GPU",
    "engine.attention=flash_attention_2": r"flash_attention_2 .*no kernel for CPUs",
    "dpo.liger=true": r"dpo.liger .*set it to false: Liger",
    "dpo.optimizer=paged_adamw_8bit": r"dpo.optimizer paged_adamw_8bit .*adamw_8bit or adamw",
}
"""Settings that need a GPU, and what is said without one."""
NEEDING = {
    "engine.quantize=nf4": "engine.quantize is nf4, which needs bitsandbytes",
    "dpo.optimizer=adamw_8bit": "dpo.optimizer is adamw_8bit, which needs bitsandbytes",
    "dpo.optimizer=paged_adamw_8bit": "dpo.optimizer is paged_adamw_8bit, which needs bitsandbytes",
    "engine.attention=flash_attention_2": "needs the package flash-attn",
    "dpo.liger=true": "needs liger-kernel",
}


@pytest.mark.parametrize("setting", GPU_ALONE)
def test_on_a_cpu_it_is_refused_in_the_dry_run_with_the_reason(setting: str, tmp_path: Path) -> None:
    for why, more in (
        ("bases below 64 MB are trained on a CPU", ()),
        ("engine.device is cpu", ("engine.device=cpu",)),
    ):
        recipe = load("toy", [setting, *more])
        with pytest.raises(SpartaError, match=f"because {why}: ") as caught:
            prepare_begin(StateDir(tmp_path / "state"), recipe)
        assert caught.match(GPU_ALONE[setting]) and "\n" not in str(caught.value)
        with pytest.raises(SpartaError, match="this task trains on a CPU"):
            check_task(recipe, "cpu")
    check_on_cpu(load("toy", [setting, "engine.kind=scripted"]), "it is a rehearsal")


def test_the_command_says_it_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    done = typed("launch", "--recipe", "toy", "--state", tmp_path / "state", "--set", "engine.quantize=nf4")
    assert done.returncode != 0
    [said] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "because bases below 64 MB are trained on a CPU: leave it out: training with a base" in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("kind", [Inline, Local])
def test_a_machine_without_a_gpu_or_the_library_is_noticed_where_its_tasks_would_run(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(StateDir(tmp_path / "state"), load("toy", ["dpo.optimizer=adamw_8bit"]))
    training = [phase for phase in phases_of(run.recipe, 1) if phase.trains]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(load_options, "find_spec", lambda name: None)
    with pytest.raises(SpartaError, match=r"needs bitsandbytes, and that is not installed here: pip install"):
        kind(run).check(training)
    kind(run).check([phase for phase in phases_of(run.recipe, 1) if not phase.trains])
    other = planned(StateDir(tmp_path / "other"), load("toy", []))
    other.recipe = load("toy", ["engine.quantize=nf4", "engine.device=cuda"])
    with pytest.raises(SpartaError, match="because this machine has no GPU"):
        kind(other).check(training)


@pytest.mark.parametrize("setting", NEEDING)
def test_a_missing_library_is_named_with_the_setting_and_the_remedy(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_options, "find_spec", lambda name: None)
    with pytest.raises(SpartaError, match=rf"{NEEDING[setting]}, and that is not installed here: "):
        check_libraries(load("toy", [setting]))
    check_libraries(load("toy", [setting, "engine.kind=scripted"]))
    monkeypatch.setattr(load_options, "find_spec", lambda name: object())
    check_libraries(load("toy", [setting]))


NF4 = {"quantize": "nf4"}
FLASH = {"attention": "flash_attention_2"}


@pytest.mark.parametrize("key", ["engine", "evaluation.judge.engine"])
def test_an_engine_needs_the_libraries_of_its_kind(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"bitsandbytes"}
    for module in (load_options, quantisation):
        monkeypatch.setattr(module, "find_spec", lambda name: name in there or None)

    def check(kind: str, has_gpu: bool, **more: Any) -> None:
        settings = EngineSettings.model_validate({"kind": kind, **more})
        check_engine_libraries(settings, key, (), has_gpu)

    for kind, has_gpu in (("vllm", False), ("vllm", True), ("auto", True)):
        with pytest.raises(SpartaError, match=rf"^{key}.quantize is nf4, .*vllm-bnb-plugin.* kind to hf$"):
            check(kind, has_gpu, **NF4)
        check(kind, has_gpu, **FLASH)
    for kind, has_gpu in (("hf", True), ("auto", False)):
        check(kind, has_gpu, **NF4)
        with pytest.raises(
            SpartaError, match=rf"^{key}.attention is flash_attention_2, .* set {key}.attention"
        ):
            check(kind, has_gpu, **FLASH)
    check("scripted", True, **NF4, **FLASH)
    there.clear()
    with pytest.raises(SpartaError, match=rf"^{key}.quantize is nf4, which needs bitsandbytes"):
        check("hf", True, **NF4)
    there.update({"bitsandbytes", "vllm_bnb_plugin"})
    check("vllm", True, **NF4)


@pytest.mark.parametrize("kind", [Inline, Local])
def test_the_library_of_a_judge_or_of_generation_is_missed_before_its_tasks_begin(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    monkeypatch.setattr(load_options, "find_spec", lambda name: object())
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ("0",))
    run = planned(StateDir(tmp_path / "state"), load("toy", []))
    generation = [phase for phase in phases_of(run.recipe, 1) if phase.runs_an_engine]
    kind(run).check(generation)
    run.recipe = load("toy", ["engine.kind=vllm", "engine.quantize=nf4"])
    with pytest.raises(SpartaError, match=r"^engine.quantize is nf4, which vLLM does through"):
        kind(run).check(generation)
    judge = ["evaluation.judge.base=judge", "evaluation.judge.engine={kind: vllm, quantize: nf4}"]
    run.recipe = load("toy", judge)
    with pytest.raises(SpartaError, match=r"^evaluation.judge.engine.quantize is nf4, which vLLM does"):
        kind(run).check([GradeAnswers("validation", {})])
