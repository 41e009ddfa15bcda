"""Liger's kernels on a base that is trained: RMSNorm and SwiGLU, each one kernel instead of several, which keep less for the backward pass.

Only these, whatever else Liger has for an architecture. Its losses never come to work, as DPO makes its log-probabilities itself (`sparta.training.dpo_batches`). Its rotary embedding would be put
into the module of the architecture, where every other model of this process meets it.
"""

import sys
from collections.abc import Callable
from inspect import signature
from typing import Any

from sparta.engines.load_options import require_liger
from sparta.errors import SpartaError

_WANTED = {"rms_norm", "swiglu"}


def apply_liger(base: Any, name: str) -> None:
    """Puts the kernels on `base`, in place, and on no other model. name: the folder of the base, for messages.

    Raises SpartaError if liger-kernel is not installed, has neither kernel for the architecture, or fails to put them on.
    """
    require_liger()
    from liger_kernel.transformers import monkey_patch

    kind = base.config.model_type
    no_kernels = f"dpo.liger is true, and liger-kernel has no kernels for base {name}, which is a {kind}"
    put = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN.get(kind)
    switches = {} if put is None else _switches(put)
    if not any(switches.values()):
        raise SpartaError(f"{no_kernels}: set it to false")
    # Besides the modules of the instance, Liger replaces the classes that later models are built from.
    architecture = vars(sys.modules[type(base).__module__])
    before = dict(architecture)
    try:
        put(model=base, **switches)
    except Exception as error:
        raise SpartaError(
            f"{no_kernels} that work with this version of transformers ({type(error).__name__}: {error}): set it to false"
        ) from error
    finally:
        architecture.update(before)


def _switches(put: Callable[..., None]) -> dict[str, bool]:
    """Each kernel that Liger's function for an architecture can put on, and whether it is wanted. Many are on by default."""
    return {
        name: name in _WANTED
        for name, parameter in signature(put).parameters.items()
        if isinstance(parameter.default, bool)
    }
