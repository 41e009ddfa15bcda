"""The paths of a study. Each cell is the state directory of a run; what belongs to the study alone lies beside the cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparta.store.layout import StateDir

POOL = "m0-"
"""Begins the name of a run that makes and scores an initial pool."""

POOLS = "pools"
"""The folder of these runs in the study's."""


def is_pool(name: str) -> bool:
    """Whether `name` is that of a run that makes an initial pool, and not of a cell."""
    return name.startswith(POOL)


SEED = "seed"
"""The axis whose levels are repetitions."""
Configuration = tuple[tuple[str, str], ...]
"""A cell's levels by axis, without its seed."""


def configuration(levels: Mapping[str, str]) -> Configuration:
    return tuple((axis, level) for axis, level in levels.items() if axis != SEED)


@dataclass(frozen=True)
class StudyDir:
    """The folder of a study. It may not exist yet."""

    root: Path

    @property
    def manifest(self) -> Path:
        """study.json: the cells and where each stands."""
        return self.root / "study.json"

    @property
    def study_yaml(self) -> Path:
        """The study file as it was last run."""
        return self.root / "study.yaml"

    @property
    def library(self) -> Path:
        """One copy of each file that several cells have; they link to it."""
        return self.root / "shared"

    @property
    def table(self) -> Path:
        return self.root / "table.json"

    @property
    def lock(self) -> StateDir:
        """Whose lock the study's driver holds: the study's folder, which is no run."""
        return StateDir(self.root)

    def cell(self, name: str) -> StateDir:
        """The state directory of a cell, or of a run of an initial pool (their names begin with m0-)."""
        return StateDir(self.root / (POOLS if is_pool(name) else "cells") / name)

    def recipe(self, name: str) -> Path:
        """The complete recipe of a cell, with which its run begins."""
        return self.root / "recipes" / f"{name}.yaml"

    def result(self, name: str) -> Path:
        """How the cell ended the last time."""
        return self.root / "results" / f"{name}.json"

    def process(self, name: str) -> Path:
        """The process that works on the cell."""
        return self.root / "running" / f"{name}.json"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"
