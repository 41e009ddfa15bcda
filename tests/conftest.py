"""Fixtures that several folders share."""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: tests share the cores, and threads that spin while they wait slow all of them down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before a library of the hub is imported: no test sees the models or the token that this user has.
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir(), f"sparta-tests-of-{os.getuid()}"))
os.environ.pop("HF_HUB_CACHE", None)
os.environ.pop("HF_TOKEN", None)
os.environ.pop("HF_TOKEN_PATH", None)

import pytest
from support import tiny_models
from support.scripted_run import ROOT, Launched, launches
from support.store_samples import Start

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


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a real Python process that runs the given code with the given arguments; all of them are gone after the test."""
    processes: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
