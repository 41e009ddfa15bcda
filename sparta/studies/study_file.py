"""The study file: one base recipe, and axes whose levels change it. Its cells are made in grid.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from sparta.arena.rules import Rules
from sparta.errors import SpartaError
from sparta.names import STUDIES, check_model_name, hint
from sparta.recipes.load import read_mapping, validated

Scalar = str | int | float | bool | None
Changes = dict[str, JsonValue]
Keep = Literal["all", "chosen", "last"]
Shared = Literal["adapters", "answers"]


class Study(Rules):
    """A grid of runs. Every combination of levels, one of each axis, is a cell: a run of its own."""

    name: str = Field(description="the study's name; its folder has this name if none is given")
    recipe: str = Field(
        description="the base recipe of all cells: a file, from the folder of the study file, or a name under sparta/recipes"
    )
    set: Changes = Field(
        default={}, description="keys of the recipe that all cells have, such as {iterations: 8}"
    )
    axes: dict[str, tuple[Scalar, ...] | dict[str, Changes]] = Field(
        min_length=1,
        description="by axis, its levels: for a key of the recipe a list of values, otherwise a mapping of names to the keys that they set. A level may "
        "set `recipe`, which replaces the base recipe",
    )
    without: tuple[dict[str, Scalar | tuple[Scalar, ...]], ...] = Field(
        default=(), description="cells to leave out: those with these levels, such as {method: spin}"
    )
    limit: int | None = Field(
        default=None,
        description="GPUs (without GPUs: cores) that all running cells use together; null: all of this machine, or of the cluster profile",
    )
    share: tuple[Shared, ...] = Field(
        default=("adapters", "answers"),
        description="adapters: equal files of adapters are on disk once; answers: the initial models answer once for all cells that agree on them",
    )
    keep: Keep = Field(
        default="all",
        description="adapters of a finished cell that stay: all; chosen: those of the chosen checkpoints; last: also those of the last pool",
    )
    choose_on: Literal["each", "trained"] = Field(
        default="each",
        description="the validation split on which a cell's checkpoints are chosen: each: that of every task for itself; trained: that of the task that "
        "the cell is trained on, for all tasks",
    )
    compare_on: Literal["test", "validation"] = Field(
        default="test",
        description="the split on which cells are compared; validation: no cell accesses the test split, as a search of settings must not",
    )
    compare: dict[str, Scalar] = Field(
        default={},
        description="an axis and its level that the others are compared with; empty: the first level of the first axis that is not seed",
    )

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, name: str) -> str:
        try:
            return check_model_name(name)
        except SpartaError as error:
            raise ValueError(str(error).replace("The model name", "the name")) from None

    @field_validator("limit")
    @classmethod
    def _at_least_one(cls, limit: int | None) -> int | None:
        if limit is not None and limit < 1:
            raise ValueError(f"{limit} GPUs run nothing: set limit to 1 or more, or leave it out for all")
        return limit

    @field_validator("axes", mode="before")
    @classmethod
    def _has_levels(cls, axes: Any) -> Any:
        for name, levels in axes.items() if isinstance(axes, Mapping) else ():
            if not isinstance(levels, (list, tuple, dict)) or not levels:
                raise ValueError(
                    f"the axis {name} needs levels: a list of values, or a mapping of names to the keys that they set"
                )
            for level in () if isinstance(levels, dict) else levels:
                if isinstance(level, (dict, list)):
                    raise ValueError(
                        f"the axis {name} has the level {level!r}: give levels that are no single value a name, as in "
                        f"{{{name}: {{small: {{{name}: ...}}}}}}"
                    )
        return axes


def find_study(source: str | Path) -> Path:
    """The study file `source`: a path that exists, or a name under sparta/recipes/studies. Raises SpartaError."""
    for path in (Path(source), STUDIES / f"{source}.yaml"):
        if path.is_file():
            return path.resolve()
    known = sorted(path.stem for path in STUDIES.glob("*.yaml"))
    raise SpartaError(
        f"there is no study {source}: neither a file, nor a begun study, nor a name under sparta/recipes/studies; "
        f"{hint(str(source), known, 'studies')}"
    )


def load_study(path: Path) -> Study:
    """The study in the file `path`. Raises SpartaError naming the file and the key."""
    return validated(Study, read_mapping(path, "study"), f"study {path}")
