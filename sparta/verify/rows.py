"""Rows against the work that asked for them: none is missing, none is a stranger's, none contradicts another."""

from collections.abc import Iterator, Sequence

from sparta.errors import SpartaError
from sparta.phases.base import ArrayPhase, Phase, Rows
from sparta.store.run import Run
from sparta.store.shard_lines import FolderLines, lines_to_mend
from sparta.verify.finding import Finding, counted

CHECK = "rows"


def findings_in_rows(run: Run, t: int, phases: Sequence[Phase], committed: bool) -> Iterator[Finding]:
    """What is wrong with the rows of iteration t. committed: all must be there; otherwise what is missing is still to be done."""
    for phase in phases:
        if not isinstance(phase, ArrayPhase) or not phase.is_countable(run, t):
            continue
        for part in phase.parts:
            folder = part.folder(run, t)
            if not committed and not folder.is_dir():
                continue
            lines = lines_to_mend(folder, part.rows)
            yield from _broken(lines, t, committed)
            try:
                wanted = {item.key for item in part.work(run, t)}
            except SpartaError as error:
                yield Finding(CHECK, f"the work of {phase.name} cannot be listed: {error}", t)
                continue
            yield from _keys(run, t, part, phase, lines, wanted, committed)


def _keys(
    run: Run, t: int, part: Rows, phase: ArrayPhase, lines: FolderLines, wanted: set[str], committed: bool
) -> Iterator[Finding]:
    folder = part.folder(run, t)
    if missing := sorted(wanted - lines.keys):
        if committed:
            yield Finding(
                CHECK,
                f"{folder} lacks {counted(len(missing), 'row')}, {missing[0]} the first: restore the folder from a copy, or go back to the iteration "
                "before with --resume",
                t,
            )
        else:
            yield Finding(
                CHECK,
                f"{phase.name} has {len(wanted) - len(missing):,} of {len(wanted):,} rows: a launch makes the others",
                t,
                wrong=False,
            )
    if strange := sorted(lines.keys - wanted):
        # If one of them mattered, the derived files could not be made again from these rows.
        yield Finding(
            CHECK,
            f"{folder} has {counted(len(strange), 'row')} that nothing asked for, {strange[0]} the first; no result is made of them",
            t,
            wrong=False,
        )


def _broken(lines: FolderLines, t: int, committed: bool) -> Iterator[Finding]:
    remedy = (
        "restore it from a copy" if committed else "--repair sets it aside, and a launch does its work again"
    )
    for line in lines.broken:
        yield Finding(CHECK, f"{line} is not a valid row ({line.error}): {remedy}", t)
    for key, places in lines.differing.items():
        choices = "; ".join(
            f"to keep the {_ordinal(number)}, delete {', '.join(str(other) for other in places if other is not line)}"
            for number, line in enumerate(places, start=1)
        )
        yield Finding(
            CHECK,
            f"{' and '.join(map(str, places))} are different results of the same work {key}, and each would give other results from here on: "
            f"{choices}; or delete all of them, and a launch does the work again",
            t,
        )
    for line in lines.torn:
        yield Finding(CHECK, f"{line} is cut off and does not count; --repair removes it", t, wrong=False)
    if lines.doubled:
        first = lines.doubled[0]
        yield Finding(
            CHECK,
            f"{counted(len(lines.doubled), 'line')} of {first.path.parent} repeat others ({first} the first) and count once; --repair removes them",
            t,
            wrong=False,
        )


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
