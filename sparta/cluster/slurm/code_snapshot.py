"""The code as it was when jobs were submitted: they run from a copy in the state, so that editing the checkout changes nothing queued."""

import hashlib
import os
import shutil
from functools import cache
from pathlib import Path

from sparta.names import PACKAGE
from sparta.store import files
from sparta.store.layout import StateDir


def code_folder(state: StateDir) -> Path:
    """Where the copies of a state are, and nobody else's."""
    return state.jobs / "code"


def snapshot_folder(state: StateDir) -> Path:
    """Where below jobs/code/ the package is copied as it is now; equal code shares one folder."""
    return (code_folder(state) / _digest()[:12]).resolve()


def snapshot(state: StateDir) -> Path:
    """`snapshot_folder`, with the copy in it. Put it before anything else on sys.path."""
    target = snapshot_folder(state)
    with files.os_errors_named(target):
        if not target.is_dir():
            temporary = files.temporary_beside(target)
            for name, path in _contents().items():
                copy = temporary / PACKAGE.name / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            try:
                os.rename(temporary, target)
            except OSError:
                if not target.is_dir():
                    raise
                shutil.rmtree(temporary)
    return target


@cache
def _contents() -> dict[Path, Path]:
    """Files of the package, by their path in it. What one process submits is one code."""
    return {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*")) if _counts(path)}


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    for name, path in _contents().items():
        digest.update(f"{name} {files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and not files.is_temporary(path.name)
