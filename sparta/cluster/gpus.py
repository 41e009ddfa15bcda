"""The GPUs that this process may use."""

import os
from pathlib import Path


def visible_gpus() -> tuple[str, ...]:
    """GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES (numbers, UUIDs, MIG slices); none without an NVIDIA driver."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(
            part.strip() for part in named.split(",") if part.strip() not in ("", "-1", "NoDevFiles")
        )
    devices = Path("/proc/driver/nvidia/gpus")
    return tuple(str(number) for number in range(len(list(devices.iterdir())))) if devices.is_dir() else ()
