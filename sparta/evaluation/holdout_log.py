"""The log of test-set accesses, evals/looks.jsonl: every checkpoint scored on a test split, recorded before it answers.

Only the first access for a purpose gives an unbiased test score. Further accesses, with another checkpoint, other items or another prompt format
or judge, are allowed; the results report them.
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

    version: of the checkpoint's weights. why: the kind of choice. chosen_on: the task on whose validation split it was chosen. iterations: whose
    models it was chosen among. items, prompt_format: how many test items, and how they are prompted (see TaskScores; `way` on disk). number: of
    this access among those of the same choice (task, why, chosen_on), from 1; 0 before it is recorded. time: in UTC; empty in a summary.
    """

    task: str
    checkpoint: str
    version: str
    why: str
    chosen_on: str
    iterations: tuple[int, ...]
    items: int
    prompt_format: str = msgspec.field(name="way")
    number: int = 0
    time: str = ""

    def same_choice(self, other: "HoldoutAccess") -> bool:
        """Whether `other` is an access to the same task for the same kind of choice."""
        return (self.task, self.why, self.chosen_on) == (other.task, other.why, other.chosen_on)

    def repeats(self, other: "HoldoutAccess") -> bool:
        """Whether this access reveals nothing beyond `other`."""
        return self.same_choice(other) and (
            self.checkpoint,
            self.version,
            self.items,
            self.prompt_format,
        ) == (
            other.checkpoint,
            other.version,
            other.items,
            other.prompt_format,
        )


def holdout_log_file(state: StateDir) -> Path:
    return state.evals / "looks.jsonl"


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """looks.json, beside evals/: a lower bound on the rows of evals/looks.jsonl, and the SHA-256 of these rows.

    Written after the rows, so the log may have more; before the first row it covers none. Missing in a state last scored by version 0.1.0.
    """

    rows: int
    sha256: str


def seal_file(state: StateDir) -> Path:
    return state.root / "looks.json"


def accesses_so_far(state: StateDir) -> list[HoldoutAccess]:
    """All accesses, oldest first. Raises SpartaError if rows were removed, changed, or added by anybody else since they were written."""
    path = holdout_log_file(state)
    sealed = _require_sealed(state, _lines(state))
    accesses = list(files.read_rows(path, HoldoutAccess)) if present(path) else []
    for at in range(len(accesses) if sealed is None else sealed, len(accesses)):
        access, before = accesses[at], accesses[:at]
        if access.number != _number(access, before) or any(access.repeats(other) for other in before):
            raise _changed(state, at)
    return accesses


def require_seal(state: StateDir) -> None:
    """Raises SpartaError if the log has lost its seal: for a run that was begun by a version that writes one."""
    log, seal = holdout_log_file(state), seal_file(state)
    if present(log) and not present(seal):
        raise SpartaError(
            f"{seal} is missing: restore it from a backup, because without it a changed {log} cannot be detected"
        )


def copy_accesses(source: StateDir, target: StateDir) -> None:
    """Give the branch in `target` the accesses of the run in `source`, sealed: they count there too."""
    if lines := _lines(source):
        files.write_bytes(holdout_log_file(target), b"".join(lines))
        _seal(target, lines)


def _lines(state: StateDir) -> list[bytes]:
    path = holdout_log_file(state)
    return files.read_bytes(path).splitlines(keepends=True) if present(path) else []


def _require_sealed(state: StateDir, lines: Sequence[bytes]) -> int | None:
    """How many rows the seal covers; None if there is no seal."""
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
        f"{log} {what}: restore it from a backup, because its {rows} test-set accesses decide how test scores are to be read"
    )


def _seal(state: StateDir, lines: Sequence[bytes]) -> None:
    files.write_json(seal_file(state), Seal(len(lines), _digest(lines)))


def _number(access: HoldoutAccess, before: Sequence[HoldoutAccess]) -> int:
    """The place of `access` among the accesses for the same reason, from 1."""
    return 1 + sum(access.same_choice(other) for other in before)


def _digest(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()


def record_accesses(state: StateDir, accesses: Sequence[HoldoutAccess]) -> list[HoldoutAccess]:
    """Record those of `accesses` that are new, and return all of them as recorded, with numbers. Requires the run's lock."""
    recorded = accesses_so_far(state)
    before, found = len(recorded), []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for access in accesses:
        known = next((other for other in recorded if access.repeats(other)), None)
        if known is None:
            known = msgspec.structs.replace(access, number=_number(access, recorded), time=now)
            recorded.append(known)
        found.append(known)
    if len(recorded) > before:
        # Old rows must stay byte-identical.
        lines = [*_lines(state), *map(files.encode_row, recorded[before:])]
        if not before:
            _seal(state, [])
        files.write_bytes(holdout_log_file(state), b"".join(lines))
        _seal(state, lines)
    return found
