"""Recipes whose experts are trained from data: a file of chats each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.scripted_run import write_recipe

NAMES = ("ada", "bea", "cem", "dov")


def write_lessons(path: Path, rows: int, word: str = "") -> Path:
    """Write SFT chats of one or two rounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chats = []
    for row in range(rows):
        turns = [f"{path.stem} {word}{row}?", f"{row} it is.", "Sure?", f"Sure: {row}."][: 2 + 2 * (row % 2)]
        roles = ("user", "assistant") * 2
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
        chats.append(json.dumps({"id": f"{path.stem}{row}", "messages": messages}))
    path.write_text("\n".join(chats) + "\n")
    return path


def write_school(
    folder: Path,
    *,
    names: Sequence[str] = NAMES,
    rows: int = 6,
    others: Sequence[dict[str, object]] = (),
    base: str = "none",
    sft: dict[str, object] | None = None,
    lora: dict[str, object] | None = None,
    **changes: Any,
) -> Path:
    """A recipe for the scripted engine (or another that `changes` names) below `folder`, its experts `names` trained from so many rows.

    others: more members. sft, lora: settings of the training.
    """
    for name in names:
        if not (folder / "lessons" / f"{name}.jsonl").exists():
            write_lessons(folder / "lessons" / f"{name}.jsonl", rows)
    models = [{"name": name, "sft": {"data": str(folder / "lessons" / f"{name}.jsonl")}} for name in names]
    pool = {"base": base, "models": [*models, *others], "sft": {"epochs": 2, "batch_size": 2, **(sft or {})}}
    return write_recipe(folder, models=0, pool={**pool, "lora": lora or {}}, **changes)
