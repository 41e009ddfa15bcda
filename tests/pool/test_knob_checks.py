"""What a recipe asks of training is refused where it cannot work, before anything starts: on a CPU, or without the library."""

from pathlib import Path
from typing import Any

import pytest
from support.openings import planned
from support.scripted_run import typed

from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.commands.begin import prepare_begin
from sparta.engines import load_options
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.pool.knob_checks import check_libraries, check_on_cpu, check_task
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
