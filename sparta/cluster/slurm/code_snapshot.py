"""A copy of the package in the state, made when jobs are submitted: they run from it, so editing the checkout does not change queued jobs."""

import hashlib
import shutil
from functools import cache
from pathlib import Path

from sparta.names import PACKAGE
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.temporaries import is_temporary


def snapshot_folder(state: StateDir) -> Path:
    """The folder below jobs/code/ for the package as it is now; equal code shares one folder."""
    return (state.code / _digest()[:12]).resolve()


def snapshot(state: StateDir) -> Path:
    """Copy the package to `snapshot_folder` and return that. It must come first on sys.path."""

    def write(folder: Path) -> None:
        for name, path in _contents().items():
            copy = folder / PACKAGE.name / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)

    target = snapshot_folder(state)
    files.put_tree(target, write)
    return target


@cache
def _contents() -> dict[Path, Path]:
    """Files of the package, by their path in it. Cached, so one process submits one version of the code."""
    return {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*")) if _belongs(path)}


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    for name, path in _contents().items():
        digest.update(f"{name} {files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _belongs(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and not is_temporary(path.name)
