"""Runs of the methods that align one model, with the scripted engine: one case a method, on a pool of three of which one learns."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.scripted_run import write_recipe
from support.tiny_classifier import classifier

UNLIKE = {"kind": "scripted", "scripted": {"equal": 0.3}}
"""For some prompts all candidates are equal, so that there is nothing to judge."""

CASES: Mapping[str, dict[str, Any]] = {
    "self_rewarding": {},
    "spin": {},
    "meta_rewarding": {},
    "sppo": {"baseline": {"preference": {"kind": "reward", "model": "reward"}}},
}
"""What the recipe of each method says beside what all have."""

ROWS: Mapping[str, tuple[str, ...]] = {
    "self_rewarding": ("candidates", "judgements", "training"),
    "spin": ("candidates", "training"),
    "meta_rewarding": ("candidates", "judgements", "comparisons", "training"),
    "sppo": ("candidates", "win_rates", "training"),
}
"""The folders of shards of an iteration, in the order in which they are made."""


def write_gold(folder: Path, prompts: int = 30) -> Path:
    """Instructions with a whole good answer each."""
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
    told: dict[str, Any] = {
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
    return write_recipe(folder, **{**told, **CASES[method], "method": method, "baseline": baseline})
