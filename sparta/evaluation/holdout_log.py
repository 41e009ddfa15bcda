"""Looks at test splits: every checkpoint that a test split was asked for, in evals/looks.jsonl, noted down before it answers.

A test score means what it says at the first look alone for one reason. Whoever looks again, at another checkpoint after more iterations, on
other items or in another way (another limit, a judge), may do so; it is told.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparta.errors import SpartaError
from sparta.store import files
from sparta.store.disk import present
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


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """looks.json, beside evals/: how many rows evals/looks.jsonl has at least, and the SHA-256 of these.

    Written after them, so that there may be rows that it does not know of yet; before the first row it knows of none. There is none in a state that
    version 0.1.0 scored last.
    """

    rows: int
    sha256: str


def seal_file(state: StateDir) -> Path:
    return state.root / "looks.json"


def accesses_so_far(state: StateDir) -> list[HoldoutAccess]:
    """All looks, oldest first. Raises SpartaError where rows are missing, were changed since they were written, or were added by somebody else."""
    path = holdout_log_file(state)
    sealed = _require_sealed(state, _lines(state))
    looks = list(files.read_rows(path, HoldoutAccess)) if present(path) else []
    for at in range(len(looks) if sealed is None else sealed, len(looks)):
        look, before = looks[at], looks[:at]
        if look.number != _number(look, before) or any(look.repeats(other) for other in before):
            raise _changed(state, at)
    return looks


def require_seal(state: StateDir) -> None:
    """Raises SpartaError where there are looks and not their seal: for a run that no version began which wrote none."""
    log, seal = holdout_log_file(state), seal_file(state)
    if present(log) and not present(seal):
        raise SpartaError(
            f"{seal} is missing: restore it from a copy, for without it nobody can tell whether {log} was changed."
        )


def copy_accesses(source: StateDir, target: StateDir) -> None:
    """What has been seen of a test split stays seen: give a branch of the run in `source` its looks, sealed."""
    if lines := _lines(source):
        files.write_bytes(holdout_log_file(target), b"".join(lines))
        _seal(target, lines)


def _lines(state: StateDir) -> list[bytes]:
    path = holdout_log_file(state)
    return files.read_bytes(path).splitlines(keepends=True) if present(path) else []


def _require_sealed(state: StateDir, lines: Sequence[bytes]) -> int | None:
    """How many rows the seal knows of; None where there is none."""
    if not present(seal_file(state)):
        return None
    seal = files.read_json(seal_file(state), Seal)
    if len(lines) < seal.rows or _digest(lines[: seal.rows]) != seal.sha256:
        raise _changed(state, seal.rows)
    return seal.rows


def _changed(state: StateDir, rows: int) -> SpartaError:
    log, seal = holdout_log_file(state), seal_file(state)
    what = f"was changed after it was written, or {seal} was" if present(log) else "is missing"
    return SpartaError(
        f"{log} {what}: restore it from a copy, for what it says of {rows} looks at test splits decides what a test score means."
    )


def _seal(state: StateDir, lines: Sequence[bytes]) -> None:
    files.write_json(seal_file(state), Seal(len(lines), _digest(lines)))


def _number(look: HoldoutAccess, before: Sequence[HoldoutAccess]) -> int:
    """Which look it is for the same reason."""
    return 1 + sum(look.same_choice(other) for other in before)


def _digest(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()


def note_accesses(state: StateDir, wanted: Sequence[HoldoutAccess]) -> list[HoldoutAccess]:
    """Note down those of `wanted` that are new; all of `wanted` as they are noted, numbered. For the holder of the run's lock."""
    noted = accesses_so_far(state)
    before, found = len(noted), []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for look in wanted:
        known = next((other for other in noted if look.repeats(other)), None)
        if known is None:
            known = msgspec.structs.replace(look, number=_number(look, noted), time=now)
            noted.append(known)
        found.append(known)
    if len(noted) > before:
        # The old rows stay byte for byte what they were.
        lines = [*_lines(state), *map(files.encode_row, noted[before:])]
        if not before:
            _seal(state, [])
        files.write_bytes(holdout_log_file(state), b"".join(lines))
        _seal(state, lines)
    return found
