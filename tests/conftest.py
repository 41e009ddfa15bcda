"""Fixtures that several folders share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: tests share the cores, and threads that spin while they wait slow all of them down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from support import tiny_models
from support.scripted_run import Launched, launches

if TYPE_CHECKING:
    from support.tiny_adapters import Member


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


@pytest.fixture(scope="session")
def member(tmp_path_factory: pytest.TempPathFactory) -> "Member":
    """A pool member of two layers that can be trained in a second."""
    from support.tiny_adapters import make_member

    return make_member(tmp_path_factory.mktemp("member"))


@pytest.fixture
def launched() -> Iterator[Launched]:
    """Launches as processes of their own, ended with the test whatever happens; see `support.scripted_run.launches`."""
    with launches() as start:
        yield start
