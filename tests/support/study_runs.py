"""Studies of scripted runs, for tests of the driver, of files and of faults."""

import json
from pathlib import Path
from typing import Any

import yaml

from sparta.studies.grid import Grid, expanded
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import CellResult, result_of
from sparta.studies.study_file import load_study
from support.scripted_run import write_recipe

GRADED: dict[str, Any] = {
    "data": {
        "train": "prompts.jsonl",
        "validation": "validation.jsonl",
        "test": "test.jsonl",
        "grading": "judge",
    },
    "evaluation": {"judge": {"base": "umpire", "engine": {"kind": "scripted"}}},
}
"""Answers are graded by a scripted judge, so that scores differ."""
BASELINE = {"method": "self_rewarding", "pool.derived": {"scores": "shared", "best": True}}


def write_study(
    folder: Path, axes: dict[str, Any], *, recipe: dict[str, Any] | None = None, **keys: Any
) -> Path:
    """A study file, with its recipe, adapters, instructions and items, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {"iterations": 1, "combats": 6, "models": 3, **GRADED}
    write_recipe(folder, **{**small, **(recipe or {})})
    for split in ("validation", "test"):
        rows = (
            json.dumps({"id": f"{split}{n}", "prompt": f"{split} question {n}", "reference": "x"})
            for n in range(5)
        )
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    path = folder / "study.yaml"
    tree = {"name": "mini", "recipe": "./recipe.yaml", "axes": axes, **keys}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def grid_of(path: Path, place: Path | None = None) -> Grid:
    """The grid of the study file `path`."""
    return expanded(load_study(path), path, StudyDir(place or path.parent / "study"))


def results(place: Path) -> dict[str, CellResult]:
    """The results of all cells of a study, by name; initial pools are left out."""
    names = sorted(
        path.stem for path in (place / "results").glob("*.json") if not path.stem.startswith("m0-")
    )
    found = {name: result_of(StudyDir(place), name) for name in names}
    return {name: result for name, result in found.items() if result is not None}


def rewritten(path: Path, **keys: Any) -> None:
    """Write the study file anew, with these keys."""
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}, sort_keys=False))
