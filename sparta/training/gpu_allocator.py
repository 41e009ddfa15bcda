"""How PyTorch takes GPU memory for training. Batches of many lengths leave fragments between segments of a fixed size: 5 GiB of 31 were seen."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SETTING = "PYTORCH_CUDA_ALLOC_CONF"
_ALSO = "PYTORCH_ALLOC_CONF"


@contextmanager
def expandable_segments() -> Iterator[None]:
    """A process that first uses a GPU in this block takes memory in segments that grow, unless the environment says otherwise already.

    PyTorch reads the setting once, with its first use of a GPU. It is taken back afterwards: engines in processes of their own have other needs.
    """
    if SETTING in os.environ or _ALSO in os.environ:
        yield
        return
    os.environ[SETTING] = "expandable_segments:True"
    try:
        yield
    finally:
        os.environ.pop(SETTING, None)
