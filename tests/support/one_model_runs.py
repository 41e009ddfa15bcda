"""Runs of the methods that align one model, with the scripted engine: one case per method, on a pool of three of which one learns."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.scripted_run import write_recipe
from support.tiny_classifier import classifier

UNLIKE = {"kind": "scripted", "scripted": {"equal": 0.3}}
"""For some prompts all candidates are equal and need no judging."""

CASES: Mapping[str, dict[str, Any]] = {
    "self_rewarding": {},
    "spin": {},
    "meta_rewarding": {},
    "sppo": {"baseline": {"preference": {"kind": "reward", "model": "reward"}}},
}
"""Changes to the recipe for each method."""

ROWS: Mapping[str, tuple[str, ...]] = {
    "self_rewarding": ("candidates", "judgements", "training"),
    "spin": ("candidates", "training"),
    "meta_rewarding": ("candidates", "judgements", "comparisons", "training"),
    "sppo": ("candidates", "win_rates", "training"),
}
"""The folders of shards of an iteration, in the order in which they are written."""


def write_gold(folder: Path, prompts: int = 30) -> Path:
    """A file of instructions with gold answers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gold.jsonl"
    rows = (
        json.dumps({"id": f"q{index}", "prompt": f"question {index}", "answer": f"right {index}"})
        for index in range(prompts)
    )
    path.write_text("\n".join(rows) + "\n")
    return path


def write_case(folder: Path, method: str, **changes: Any) -> Path:
    """The recipe of a short run of `method`, below `folder`."""
    write_gold(folder)
    settings: dict[str, Any] = {
        "models": 3,
        "combats": 8,
        "iterations": 2,
        "engine": UNLIKE,
        "data": {"train": "gold.jsonl"},
        **changes,
    }
    baseline = {"start": "model1", **CASES[method].get("baseline", {}), **changes.get("baseline", {})}
    if baseline.get("preference") == {"kind": "reward", "model": "reward"}:
        baseline["preference"] = {"kind": "reward", "model": classifier(folder / "reward")}
    return write_recipe(folder, **{**settings, **CASES[method], "method": method, "baseline": baseline})
