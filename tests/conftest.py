"""Fixtures that several folders share."""

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 of two layers."""
    return tiny.make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_base: Path) -> dict[str, Path]:
    """Three random adapters of `tiny_base`, by name."""
    names = ("ada", "bea", "cem")
    return {
        name: tiny.make_adapter(tiny_base.parent / name, tiny_base, seed=seed)
        for seed, name in enumerate(names, start=1)
    }
