"""Looks at test splits: every checkpoint that a test split was asked for, in evals/looks.jsonl, noted down before it answers.

A test score means what it says at the first look alone for one reason. Whoever looks again, at another checkpoint after more iterations, on
other items or in another way (another limit, a judge), may do so; it is told.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.store import files
from sparta.store.layout import StateDir


class HoldoutAccess(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of evals/looks.jsonl.

    version: of the checkpoint's weights. why: what the checkpoint is. chosen_on: the task on whose validation split. iterations: among whose
    models. items, way: how many test items it was to answer, and how (see TaskScores). number: which look it is
    for the same reason (task, why, chosen_on), from 1; 0 before it is noted. time: when, in UTC; empty in a summary.
    """

    task: str
    checkpoint: str
    version: str
    why: str
    chosen_on: str
    iterations: tuple[int, ...]
    items: int
    way: str
    number: int = 0
    time: str = ""

    def same_choice(self, other: "HoldoutAccess") -> bool:
        """Whether `other` is a look at the same task for a checkpoint that was chosen in the same way."""
        return (self.task, self.why, self.chosen_on) == (other.task, other.why, other.chosen_on)

    def repeats(self, other: "HoldoutAccess") -> bool:
        """Whether this shows nothing that `other` has not shown."""
        return self.same_choice(other) and (self.checkpoint, self.version, self.items, self.way) == (
            other.checkpoint,
            other.version,
            other.items,
            other.way,
        )


def holdout_log_file(state: StateDir) -> Path:
    return state.evals / "looks.jsonl"


def accesses_so_far(state: StateDir) -> list[HoldoutAccess]:
    """All looks, oldest first."""
    path = holdout_log_file(state)
    return list(files.read_rows(path, HoldoutAccess)) if path.is_file() else []


def note_accesses(state: StateDir, wanted: Sequence[HoldoutAccess]) -> list[HoldoutAccess]:
    """Note down those of `wanted` that are new; all of `wanted` as they are noted, numbered. For the holder of the run's lock."""
    noted = accesses_so_far(state)
    before, found = len(noted), []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for look in wanted:
        known = next((other for other in noted if look.repeats(other)), None)
        if known is None:
            earlier = sum(look.same_choice(other) for other in noted)
            known = msgspec.structs.replace(look, number=earlier + 1, time=now)
            noted.append(known)
        found.append(known)
    if len(noted) > before:
        files.write_rows(holdout_log_file(state), noted)
    return found
