"""Liger's kernels: which of them are asked for, and that they stay on the base that is trained. The library runs on GPUs alone, so it has a stand-in."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparta.errors import SpartaError
from sparta.training.job import TrainingJob
from sparta.training.loading import load_base

STAND_IN = """
ASKED = []

def apply_liger_kernel_to_qwen2(
    rope=True, cross_entropy=False, fused_linear_cross_entropy=True, rms_norm=True, swiglu=True, layer_norm=True, model=None
):
    from transformers.models.qwen2 import modeling_qwen2
    ASKED.append({name: value for name, value in locals().items() if isinstance(value, bool)})
    class Kernel(modeling_qwen2.Qwen2RMSNorm):
        pass
    modeling_qwen2.Qwen2RMSNorm = Kernel
    model.model.norm.__class__ = Kernel

MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen2": apply_liger_kernel_to_qwen2}
"""
"""As the library does: it changes the instance, and the class that later models are built from."""


@pytest.fixture
def liger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "liger_kernel" / "transformers"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "monkey_patch.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "liger_kernel"]:
        monkeypatch.delitem(sys.modules, name)
    return package / "monkey_patch.py"


def test_only_kernels_of_the_forward_pass_are_put_on_this_base_and_no_other(
    liger: Path, make_job: Callable[..., TrainingJob]
) -> None:
    with_kernels = load_base(make_job(settings={"liger": True}), "cpu", "float32")
    from liger_kernel.transformers import monkey_patch

    [asked] = monkey_patch.ASKED
    assert {name for name, wanted in asked.items() if wanted} == {"rms_norm", "swiglu"}
    assert {name for name, wanted in asked.items() if not wanted} == {
        "rope",
        "cross_entropy",
        "fused_linear_cross_entropy",
        "layer_norm",
    }
    assert type(with_kernels.model.norm).__name__ == "Kernel"
    without = load_base(make_job("b"), "cpu", "float32")
    assert type(without.model.norm).__name__ == "Qwen2RMSNorm" and len(monkey_patch.ASKED) == 1


def test_a_base_without_kernels_and_a_machine_without_the_library_are_told_so(
    liger: Path, make_job: Callable[..., TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(settings={"liger": True})
    liger.write_text(STAND_IN.replace('"qwen2"', '"other"'))
    with pytest.raises(SpartaError, match=r"no kernels for base .*, which is a qwen2: set it to false"):
        load_base(job, "cpu", "float32")
    from liger_kernel.transformers import monkey_patch

    def has_neither(rope: bool = True, geglu: bool = True, model: object = None) -> None:
        raise AssertionError("not called")

    def is_outdated(rms_norm: bool = True) -> None:
        raise AssertionError("it takes no model")

    for put, told in (
        (has_neither, ": set it"),
        (is_outdated, r" that work with .* \(TypeError: .*: set it"),
    ):
        monkeypatch.setitem(monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN, "qwen2", put)
        with pytest.raises(SpartaError, match=f"no kernels for base .*, which is a qwen2{told} to false"):
            load_base(job, "cpu", "float32")
    monkeypatch.setattr("sparta.engines.load_options.find_spec", lambda name: None)
    with pytest.raises(SpartaError, match=r"needs liger-kernel, and that is not installed here: pip install"):
        load_base(job, "cpu", "float32")
