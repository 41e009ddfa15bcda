"""Liger's kernels on a base that is trained: RMSNorm and SwiGLU, each one kernel instead of several, which keep less for the backward pass.

Only these. Liger's losses never come to work, as DPO makes its log-probabilities itself (`sparta.training.dpo_batches`). Its rotary embedding would be put
into the module of the architecture, where every other model of this process meets it.
"""

import sys
from typing import Any

from sparta.engines.load_options import require_liger
from sparta.errors import SpartaError

_WANTED = {
    "rms_norm": True,
    "swiglu": True,
    "rope": False,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}


def apply_liger(base: Any, name: str) -> None:
    """Puts the kernels on `base`, in place, and on no other model. name: the folder of the base, for messages.

    Raises SpartaError if liger-kernel is not installed, or does not know the architecture.
    """
    require_liger()
    from liger_kernel.transformers import monkey_patch

    kind = base.config.model_type
    if kind not in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise SpartaError(
            f"dpo.liger is true, and liger-kernel has no kernels for base {name}, which is a {kind}: set it to false"
        )
    # Besides the modules of the instance, Liger replaces the classes that later models are built from.
    architecture = vars(sys.modules[type(base).__module__])
    before = dict(architecture)
    try:
        monkey_patch._apply_liger_kernel_to_instance(base, **_WANTED)
    finally:
        architecture.update(before)
