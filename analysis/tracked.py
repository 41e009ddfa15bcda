"""What a tracker is told about a run: numbers by iteration, and which of them it has been told already.

A tracker's record cannot be taken back, so a number is sent once. `tracked/TRACKER.json` in the state says what was sent; no manifest covers it. If something that was sent has
changed since (a run that went back to an earlier iteration), everything is sent again under a new name.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from analysis.frames import Frames
from sparta.arena.preferences import REASONS
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir

Values = dict[int, dict[str, float]]
"""Numbers by iteration and name, such as reputation/adder."""


class Sent(msgspec.Struct, frozen=True):
    """tracked/TRACKER.json. number: how often everything was sent anew, from 1. values: what the tracker has under the latest name, by iteration."""

    number: int = 1
    values: dict[str, dict[str, float]] = {}

    def name(self, run: str) -> str:
        """`run` as the tracker knows it."""
        return run if self.number == 1 else f"{run}-{self.number}"

    def having(self, t: int, row: Mapping[str, float]) -> "Sent":
        """What the tracker has after `row` of iteration t was delivered too."""
        return Sent(self.number, {**self.values, str(t): {**self.values.get(str(t), {}), **row}})

    def missing(self, values: Values) -> "tuple[Sent, Values]":
        """What to send of `values`, and what the tracker has before; all of it under the next name, which has nothing yet, if a value has changed or is gone."""
        known = {str(t): row for t, row in values.items()}
        changed = any(
            known.get(t, {}).get(name) != value
            for t, row in self.values.items()
            for name, value in row.items()
        )
        if changed:
            return Sent(self.number + 1), values
        new = {
            t: {name: value for name, value in row.items() if name not in self.values.get(str(t), {})}
            for t, row in values.items()
        }
        return self, {t: row for t, row in new.items() if row}


def sent_file(state: StateDir, tracker: str) -> Path:
    return state.root / "tracked" / f"{tracker}.json"


def read_sent(state: StateDir, tracker: str) -> Sent:
    """What `tracker` has of the run; nothing if it was never told anything."""
    path = sent_file(state, tracker)
    remedy = "remove it, and everything is sent again under the same name"
    return files.read_json(path, Sent, remedy) if present(path) else Sent()


def tracked_values(found: Frames) -> Values:
    """All that the only run of `found` knows, of its committed iterations: standings, losses, results of combats, cost, scores."""
    values: Values = {}

    def put(t: Any, name: str, value: Any) -> None:
        if pd.notna(value) and math.isfinite(value):
            values.setdefault(int(t), {})[name] = float(value)

    done = {int(t) for t in found.iterations.iteration[found.iterations.committed.astype(bool)]}
    # Without combats, reputations are only carried over.
    played = set(found.iterations.iteration[found.iterations.unit == "combats"]) | {0}
    moved = (
        found.standings[found.standings.iteration.isin(played)] if len(played) > 1 else found.standings[:0]
    )
    for row in moved.itertuples():
        for name in ("reputation", "deviation", "weight"):
            put(row.iteration, f"{name}/{row.model}", getattr(row, name))
    for row in found.training.itertuples():
        put(row.iteration, f"loss/{row.model}", row.mean_loss)
    for row in found.iterations.itertuples():
        for name in REASONS:
            put(row.iteration, f"{row.unit}/{name}", getattr(row, name))
        if pd.notna(row.combats) and pd.notna(row.pair) and row.combats:
            put(row.iteration, f"{row.unit}/share of pairs", row.pair / row.combats)
        for name in ("generated", "read", "trained"):
            put(row.iteration, f"tokens/{name}", getattr(row, name))
        put(row.iteration, "cost/GPU hours", row.gpu_seconds / 3600)
        put(row.iteration, "cost/idle share of GPUs", row.gpu_idle)
    scores = found.scores[found.scores.selects.astype(bool) & (found.scores.missing == 0)]
    for row in scores.itertuples():
        put(row.iteration, f"{row.split} {row.metric}/{row.task}/{row.model}", row.mean)
    return {t: dict(sorted(row.items())) for t, row in sorted(values.items()) if t in done}


def settings_of(found: Frames) -> Mapping[str, Any]:
    """The recipe of the only run, as plain values."""
    return found.run().recipe.model_dump(mode="json")
