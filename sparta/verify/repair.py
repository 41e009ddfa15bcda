"""Repairs that lose nothing: rows that do not count are set aside, and litter of killed writers is removed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sparta.phases.base import ArrayPhase, Phase
from sparta.store import files
from sparta.store.cleanup import clear_abandoned
from sparta.store.records import Row
from sparta.store.run import Run
from sparta.store.shard_lines import ShardLine, lines_to_mend
from sparta.verify.finding import MethodParts, counted
from sparta.verify.scores import row_folders


def repair(run: Run, method: MethodParts, say: Callable[[str], None]) -> None:
    """Take out of the shards: last lines that are cut off, lines that repeat others, and, where nothing is committed yet, lines that are no rows.

    They are kept in a file below superseded/. Rows of one key that differ stay, because only a person can choose between them. The caller holds
    the lock, and no task is at work.
    """
    clear_abandoned(run.state)
    last = run.state.last_committed()
    committed = -1 if last is None else last
    for t in run.state.iterations():
        for folder, of in _folders(run, t, method.phases(t)):
            _mend(run, folder, of, with_broken=t > committed, say=say)
    for folder, of in row_folders(run):
        _mend(run, folder, of, with_broken=False, say=say)


def _folders(run: Run, t: int, phases: Sequence[Phase]) -> Iterator[tuple[Path, type[Row]]]:
    """The folders of shards of iteration t with their row types, each once."""
    seen = set[Path]()
    for phase in phases:
        for part in phase.parts if isinstance(phase, ArrayPhase) else ():
            folder = part.folder(run, t)
            if folder not in seen and folder.is_dir():
                seen.add(folder)
                yield folder, part.rows


def _mend(run: Run, folder: Path, of: type[Row], with_broken: bool, say: Callable[[str], None]) -> None:
    lines = lines_to_mend(folder, of)
    out = [*lines.torn, *lines.doubled, *(lines.broken if with_broken else ())]
    if not out:
        return
    aside = (
        run.state.superseded
        / f"repair-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        / folder.relative_to(run.state.root)
    )
    by_file = defaultdict[Path, list[ShardLine]](list)
    for line in out:
        by_file[line.path].append(line)
    for path, of_file in by_file.items():
        # Kept first: a stop in between leaves a line in both places, never in none.
        files.write_bytes(aside / path.name, b"".join(_ended(line.raw) for line in of_file))
        _leave_out(path, {line.number for line in of_file})
    say(
        f"{folder}: {counted(len(lines.torn), 'line')} cut off, {len(lines.doubled)} doubled, {len(lines.broken) if with_broken else 0} no rows; "
        f"set aside in {aside}"
    )


def _leave_out(path: Path, numbers: set[int]) -> None:
    """Write `path` without the lines of these numbers."""
    with files.replacing(path) as new, path.open("rb") as old:
        new.writelines(line for number, line in enumerate(old, start=1) if number not in numbers)


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"
