"""The frames of analysis/frames.py: which columns each has, of which type; analysis/README.md says what they mean.

A missing number is NaN (of a count: <NA>), a missing name or text is missing too; nothing has a default in its place.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

Columns = Mapping[str, Sequence[Any]]
"""Some rows of a frame: the values of each column."""

NAME, TEXT, NUMBER, COUNT, MAYBE_COUNT, FLAG = "category", "str", "float64", "int64", "Int64", "bool"

_CHECKPOINT = {"task": NAME, "split": NAME, "checkpoint": NAME, "iteration": COUNT, "model": NAME}

FRAMES: Mapping[str, Mapping[str, str]] = {
    "runs": {
        "path": TEXT,
        "recipe": TEXT,
        "method": NAME,
        "task": NAME,
        "seed": COUNT,
        "run_id": TEXT,
        "created": TEXT,
        "models": COUNT,
        "combats": COUNT,
        "iterations": COUNT,
        "committed": MAYBE_COUNT,
    },
    "iterations": {
        "iteration": COUNT,
        "committed": FLAG,
        "unit": NAME,
        "combats": MAYBE_COUNT,
        "pair": MAYBE_COUNT,
        "empty": MAYBE_COUNT,
        "equal": MAYBE_COUNT,
        "void": MAYBE_COUNT,
        "tie": MAYBE_COUNT,
        "margin": MAYBE_COUNT,
        "uniform_juries": MAYBE_COUNT,
        "too_long": MAYBE_COUNT,
        "unanswered": MAYBE_COUNT,
        "cut_responses": MAYBE_COUNT,
        "votes_saved": MAYBE_COUNT,
        "generated": MAYBE_COUNT,
        "read": MAYBE_COUNT,
        "trained": MAYBE_COUNT,
        "gpu_seconds": NUMBER,
        "gpu_idle": NUMBER,
    },
    "splits": {"task": NAME, "split": NAME, "items": COUNT, "frozen": COUNT, "trained_on": FLAG},
    "combats": {
        "iteration": COUNT,
        "place": COUNT,
        "combat_id": TEXT,
        "prompt_id": TEXT,
        "prompt": TEXT,
        "first": NAME,
        "second": NAME,
        "score_first": NUMBER,
        "score_second": NUMBER,
        "margin": NUMBER,
        "winner": NAME,
        "loser": NAME,
        "reason": NAME,
        "jury": COUNT,
        "before_first": NUMBER,
        "before_second": NUMBER,
        "after_first": NUMBER,
        "after_second": NUMBER,
    },
    "responses": {
        "iteration": COUNT,
        "combat_id": TEXT,
        "model": NAME,
        "text": TEXT,
        "thinking": TEXT,
        "answered": FLAG,
        "prompt_tokens": COUNT,
        "new_tokens": COUNT,
        "finish_reason": NAME,
        "seconds": NUMBER,
    },
    "votes": {
        "iteration": COUNT,
        "combat_id": TEXT,
        "contestant": NAME,
        "judge": NAME,
        "score": NUMBER,
        "raw": TEXT,
        "answered": FLAG,
        "tries": COUNT,
        "prompt_tokens": COUNT,
        "new_tokens": COUNT,
        "cut": COUNT,
        "seconds": NUMBER,
    },
    "pairs": {
        "iteration": COUNT,
        "combat_id": TEXT,
        "made": COUNT,
        "chosen_model": NAME,
        "rejected_model": NAME,
        "chosen_score": NUMBER,
        "rejected_score": NUMBER,
        "margin": NUMBER,
        "chosen": TEXT,
        "rejected": TEXT,
        "chosen_finished": FLAG,
        "rejected_finished": FLAG,
    },
    "standings": {
        "iteration": COUNT,
        "model": NAME,
        "reputation": NUMBER,
        "change": NUMBER,
        "deviation": NUMBER,
        "weight": NUMBER,
        "reweighted": FLAG,
    },
    "training": {
        "iteration": COUNT,
        "model": NAME,
        "kind": NAME,
        "used": COUNT,
        "dropped": COUNT,
        "steps": COUNT,
        "first_loss": NUMBER,
        "last_loss": NUMBER,
        "mean_loss": NUMBER,
        "tokens": COUNT,
        "seconds": NUMBER,
    },
    "updates": {
        "iteration": COUNT,
        "model": NAME,
        "update": COUNT,
        "loss": NUMBER,
        "grad_norm": NUMBER,
        "learning_rate": NUMBER,
        "reward_margin": NUMBER,
        "reward_accuracy": NUMBER,
        "seconds": NUMBER,
    },
    "answers": {
        **_CHECKPOINT,
        "item_id": TEXT,
        "answered": FLAG,
        "prompt_tokens": COUNT,
        "new_tokens": COUNT,
        "finish_reason": NAME,
        "seconds": NUMBER,
    },
    "item_scores": {**_CHECKPOINT, "metric": NAME, "item_id": TEXT, "score": NUMBER},
    "scores": {
        **_CHECKPOINT,
        "metric": NAME,
        "top": NUMBER,
        "selects": FLAG,
        "items": COUNT,
        "mean": NUMBER,
        "graded": COUNT,
        "ungraded": COUNT,
        "unanswered": COUNT,
        "missing": COUNT,
    },
    "choices": {
        "task": NAME,
        "what": NAME,
        "chosen_on": NAME,
        "checkpoint": NAME,
        "iteration": COUNT,
        "model": NAME,
        "validation": NUMBER,
        "metric": NAME,
        "selects": FLAG,
        "top": NUMBER,
        "mean": NUMBER,
        "low": NUMBER,
        "high": NUMBER,
        "ungraded": MAYBE_COUNT,
        "access": MAYBE_COUNT,
    },
    "comparisons": {
        "task": NAME,
        "what": NAME,
        "chosen_on": NAME,
        "metric": NAME,
        "checkpoint": NAME,
        "other": TEXT,
        "other_checkpoint": TEXT,
        "difference": NUMBER,
        "p": NUMBER,
        "items": COUNT,
    },
    "cost": {
        "iteration": COUNT,
        "part": NAME,
        "unit": NAME,
        "seconds": NUMBER,
        "share": NUMBER,
        "places": NUMBER,
        "clock": NUMBER,
    },
}
"""By frame, its columns and their types, after `run` and the columns of a study."""

ANSWER_TEXTS = {
    "checkpoint": NAME,
    "item_id": TEXT,
    "prompt": TEXT,
    "right": TEXT,
    "text": TEXT,
    "thinking": TEXT,
}


def typed(name: str, columns: Columns, order: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of the frame `name`. order: names that come first among the categories of a column that has them, such as the pool's models."""
    made = {}
    missing = [None] * max((len(values) for values in columns.values()), default=0)
    for column, kind in FRAMES[name].items():
        values = columns.get(column, missing)
        if kind == NAME:
            there = dict.fromkeys(value for value in values if value is not None)
            first = [each for each in order if each in there]
            made[column] = pd.Series(
                pd.Categorical(values, categories=list(dict.fromkeys([*first, *there]))), dtype="category"
            )
        else:
            made[column] = pd.Series(values, dtype=kind)
    return pd.DataFrame(made)


def together(name: str, parts: Iterable[pd.DataFrame], before: Sequence[str] = ()) -> pd.DataFrame:
    """The parts of the frame `name` below each other. Columns of names keep their type. before: names of the columns before its own."""
    found = [part for part in parts if len(part)]
    names = [*before, *(column for column, kind in FRAMES[name].items() if kind == NAME)]
    if not found:
        empty = typed(name, {})
        for place, column in enumerate(before):
            empty.insert(place, column, pd.Series([], dtype="category"))
        return empty
    for column in names:
        categories = dict.fromkeys(each for part in found for each in part[column].cat.categories)
        for part in found:
            part[column] = part[column].cat.set_categories(list(categories))
    return pd.concat(found, ignore_index=True)
