"""Copies the package's batch scripts and cluster profiles to a folder where a person edits and submits them."""

import shutil
from pathlib import Path

from sparta.errors import SpartaError
from sparta.names import SLURM
from sparta.store import files

SHIPPED = ("*.sh", "profiles/*.yaml")
"""The files of slurm/ that the wheel ships."""


def copy_scripts(folder: Path) -> Path:
    """Copy the scripts and profiles to folder/slurm and return it. Raises SpartaError where that exists: nothing is overwritten."""
    target = folder / "slurm"
    if target.exists():
        raise SpartaError(f"{target} exists already: name another folder, or move it away first")
    with files.os_errors_named(target):
        for pattern in SHIPPED:
            for path in sorted(SLURM.glob(pattern)):
                copy = target / path.relative_to(SLURM)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
    return target
