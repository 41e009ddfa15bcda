"""The GPUs that this process may use, and whether its task works on them."""

import os
from collections.abc import Sequence
from pathlib import Path

from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.pool.knob_checks import check_engine_libraries, check_libraries, check_on_cpu
from sparta.pool.members import judge_reference, locate, settled_for
from sparta.store.run import Run


def visible_gpus() -> tuple[str, ...]:
    """GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES (numbers, UUIDs, MIG slices); none without an NVIDIA driver."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(
            part.strip() for part in named.split(",") if part.strip() not in ("", "-1", "NoDevFiles")
        )
    devices = Path("/proc/driver/nvidia/gpus")
    return tuple(str(number) for number in range(len(list(devices.iterdir())))) if devices.is_dir() else ()


def check_machine(run: Run, phases: Sequence[Phase]) -> None:
    """Raises SpartaError where a task of `phases` needs more GPUs than this machine has, if it has any, or would train on this machine, which cannot
    do what the recipe asks of training, or where the library of an engine is missing.
    """
    visible = len(visible_gpus())
    for phase in phases:
        needed = phase.gpus(run.recipe)
        if 0 < visible < needed:
            raise SpartaError(
                f"{phase.gpus_key} is {needed}, and this machine has {visible} GPU{'s' * (visible != 1)}: lower it"
            )
        if phase.runs_an_engine:
            settings, key = phase.engine(run.recipe), phase.engine_key
            check_engine_libraries(settings, key, _served(run, phase), bool(visible))
    if any(phase.trains for phase in phases):
        if not visible:
            check_on_cpu(run.recipe, "this machine has no GPU")
        check_libraries(run.recipe)


def _served(run: Run, phase: Phase) -> set[str]:
    """The folders of the bases that the engine of `phase` serves."""
    if phase.engine_key != "engine":
        return {judge_reference(run.recipe).base}
    return {locate(base, run.recipe.pool.folder) for base in run.bases.values()}


def gpus_of_task(run: Run, phase: Phase) -> Sequence[str]:
    """The GPUs that a task of `phase` in this process may use; none if it works on the CPU nevertheless."""
    gpus = visible_gpus() if phase.gpus(run.recipe) else ()
    if not gpus:
        return ()
    settings = phase.engine(run.recipe)
    if (phase.runs_an_engine or phase.trains) and phase.engine_key == "engine":
        settings = settled_for(run, settings)
    return () if settings.device == "cpu" else gpus
