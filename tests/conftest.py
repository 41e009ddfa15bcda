"""Fixtures that several folders share."""

import os
from pathlib import Path

# Before torch is imported: tests share the cores, and threads that spin while they wait slow all of them down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from support import tiny_models


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of two layers."""
    return tiny_models.make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_base: Path) -> dict[str, Path]:
    """Three random adapters of `tiny_base`, by name."""
    names = ("ada", "bea", "cem")
    return {
        name: tiny_models.make_adapter(tiny_base.parent / name, tiny_base, seed=seed)
        for seed, name in enumerate(names, start=1)
    }
