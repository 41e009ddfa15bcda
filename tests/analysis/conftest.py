"""A small synthetic run that tests of the analysis share; they do not change it."""

from pathlib import Path

import pytest
from support.paper_sized import Size, write_run
from support.scripted_run import begin

from analysis import frames

SMALL = Size(models=4, combats=24, iterations=2, items=0.03, words=20, tasks=("gsm8k", "alpaca", "medqa"))


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("synthetic"), SMALL).state.root


@pytest.fixture(scope="session")
def found(state: Path) -> frames.Frames:
    return frames.load(state)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> frames.Frames:
    """The frames of a run that has its initial pool and nothing else."""
    return frames.load(begin(tmp_path_factory.mktemp("begun")).state.root)
