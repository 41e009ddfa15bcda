"""Runs on the real data sets: prepared by the real command, with a small random pool and a recipe that takes minutes on a CPU."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import tiny_models
from support.scripted_run import ROOT, typed

RAW = Path(os.environ.get("SPARTA_DATA", ROOT.parent / "shared" / "data"))
"""The raw files of the data sets, which are not part of the repository."""
TASKS = ("gsm8k", "normad_country")
ITEMS = 6

needs_raw_data = pytest.mark.skipif(
    not RAW.is_dir(),
    reason=f"the raw data sets are not there: put them under {RAW}, or name them in SPARTA_DATA",
)


def prepared(folder: Path) -> Path:
    """A folder with GSM8K and NormAd Country as `jobs/prepare_data.py` leaves them."""
    done = typed("prepare_data", *TASKS, "--from", RAW, "--folder", folder)
    assert done.returncode == 0, done.stderr
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file. Not splitlines: texts may contain other line separators."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def write_recipe(folder: Path, data: Path, task: str, **changes: object) -> Path:
    """A recipe for one iteration of a small random pool on `task`, scored on both tasks."""
    base = tiny_models.make_base(folder / "base", context=4096)
    names = ("ada", "bea", "cem", "dov")
    for seed, name in enumerate(names, start=1):
        tiny_models.make_adapter(folder / "adapters" / name, base, seed=seed)
    tree = {
        "extends": f"paper/{task}",
        "name": f"small-{task}",
        "combats": 6,
        "iterations": 1,
        "pool": {
            "base": "./base",
            "models": [{"name": name, "adapter": f"./adapters/{name}"} for name in names],
        },
        "data": {"task": task, "folder": str(data)},
        "generation": {"max_new_tokens": 12},
        "judging": {"mode": "expected"},
        "dpo": {"max_length": 4096},
        "engine": {"kind": "hf", "context_length": 4096, "threads": 1},
        "evaluation": {"tasks": list(TASKS), "validation": ITEMS, "test": ITEMS, "max_new_tokens": 12},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def check_evaluated(state: Path, data: Path) -> None:
    """Both tasks are scored: every checkpoint on the first items of validation, the chosen ones on those of test, with real prompts."""
    summary = json.loads((state / "evals" / "summary.json").read_text())
    assert set(summary["tasks"]) == set(TASKS)
    for task in TASKS:
        told = summary["tasks"][task]
        assert told["items"] == {"validation": ITEMS, "test": ITEMS}
        assert len(told["validation"]) == 2 * 4
        for split in ("validation", "test"):
            wanted = [row["id"] for row in rows(data / task / f"{split}.jsonl")[:ITEMS]]
            [folder] = (state / "evals" / task / split).glob("answers-*")
            found = [row for path in folder.glob("*.jsonl") for row in rows(path)]
            assert {row["item_id"] for row in found} == set(wanted)
            checkpoints = {row["checkpoint"] for row in found}
            assert len(found) == ITEMS * len(checkpoints)
            assert all(row["prompt_tokens"] > 50 for row in found)
            chosen = {choice["checkpoint"] for choice in told["choices"]}
            assert checkpoints == (set(told["validation"]) if split == "validation" else chosen)
