"""The report of a run or a study: python analysis/report.py [STATE_OR_STUDY]

One HTML page (report/report.html in the folder) that needs no network, and the tables and figures beside it as files. With --watch it is made again whenever the
run has got further, and an open page reloads itself.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.browse import filters_of
from analysis.cases import Case, case_studies
from analysis.contents import sections
from analysis.frames import Frames, load
from analysis.headline import Headline, headline
from analysis.html_page import Answer, Page
from analysis.program import parser_of, run_program
from analysis.study_headline import study_answers
from sparta import __version__
from sparta.errors import SpartaError
from sparta.store import files

RELOAD_SECONDS = 30
STUDY_CASES = 1
"""Cases of each kind that a study's report has of each cell, from its last iteration."""


def write_report(root: Path, folder: Path, reload_seconds: int = 0) -> tuple[Path, bool]:
    """Make the report of the state or study in `root` below `folder`. Returns the page, and whether something is still going on."""
    found = load(root)
    heads = {source.label: headline(found, source) for source in found.sources}
    going = _going(found, heads)
    page = Page(
        title=_title(found),
        state=_state(found, heads),
        going=going,
        answers=_answers(found, heads),
        sections=list(sections(found, folder)),
        cases=_cases(found),
        filters=filters_of(found),
        several=len(found.sources) > 1,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        source=root.resolve().name,
        version=__version__,
        reload_seconds=reload_seconds if going else 0,
    )
    path = folder / "report.html"
    files.write_bytes(path, page.html().encode("utf-8", errors="backslashreplace"))
    return path, going


def _going(found: Frames, heads: Mapping[str, Headline]) -> bool:
    """Whether the run, or a cell of the study, has still to finish. A cell that has failed, or needs one that has, does not go on by itself."""
    if found.study is None:
        return any(head.going for head in heads.values())
    entries = (*found.study.pools, *found.study.cells)
    stopped = {entry.name for entry in entries if entry.state == "failed"}
    # A cell comes after what it needs.
    for entry in entries:
        if not stopped.isdisjoint(entry.needs):
            stopped.add(entry.name)
    return any(entry.state != "done" and entry.name not in stopped for entry in found.study.cells)


def _title(found: Frames) -> str:
    if found.study is not None:
        return f"Study {found.study.name}"
    recipe = found.run().recipe
    return f"{recipe.name}, seed {recipe.seed}"


def _state(found: Frames, heads: dict[str, Headline]) -> str:
    if found.study is None:
        return next(iter(heads.values())).state
    done = sum(cell.state == "done" for cell in found.study.cells)
    failed = sum(cell.state == "failed" for cell in found.study.cells)
    return f"{done} of {len(found.study.cells)} cells done" + (f", {failed} failed" if failed else "")


def _cases(found: Frames) -> list[Case]:
    if found.study is None:
        return case_studies(found)
    return [
        case
        for source in found.sources
        for case in case_studies(found, STUDY_CASES, source.label)
        if case.iteration == source.run.state.last_committed()
    ]


def _answers(found: Frames, heads: dict[str, Headline]) -> list[Answer]:
    """The first screen."""
    if found.study is not None:
        return study_answers(found, heads)
    [head] = heads.values()
    more = (
        [f"{gain.task}: {gain.metric} {gain.in_words}" for gain in head.gains] if len(head.gains) > 1 else []
    )
    kept = head.keep
    return [
        Answer("Did it work?", head.worked, [*more, *(head.pool if len(head.pool) == 1 else ())]),
        Answer("Which model to keep?", kept.checkpoint, [kept.why], kept.commands)
        if kept
        else Answer(
            "Which model to keep?", "None can be named yet", ["no scores, and no reputations that differ"]
        ),
        Answer("How sure is that?", *_first_and_rest(head.sure, "Nothing was scored yet")),
        Answer("What did it cost?", *_first_and_rest(head.cost, "Nothing was measured yet")),
    ]


def _first_and_rest(lines: Sequence[str], otherwise: str) -> tuple[str, Sequence[str]]:
    return (lines[0], lines[1:]) if lines else (otherwise, ())


def watch(root: Path, folder: Path, seconds: int) -> Path:
    """Make the report again whenever the state has changed, until everything is finished.

    What cannot be read at the moment is reported on standard error, and tried again when the state has changed.
    """
    before = ""
    while True:
        now = _signature(root, folder)
        if now != before:
            before = now
            try:
                path, going = write_report(root, folder, RELOAD_SECONDS)
            except SpartaError as error:
                print(f"{datetime.now():%H:%M:%S} error: {error}", file=sys.stderr, flush=True)
            else:
                print(f"{datetime.now():%H:%M:%S} report: {path}", flush=True)
                if not going:
                    return path
        time.sleep(seconds)


def _signature(root: Path, folder: Path) -> str:
    """A digest of the names, sizes and times of the files that a report is made of; of rows under way, too."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.json*")):
        if folder in path.parents or "lock" in path.parts:
            continue
        try:
            seen = path.stat()
        except FileNotFoundError:
            continue
        found.update(f"{path}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
    return found.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: report/ in the folder)"
    )
    parser.add_argument(
        "--watch", action="store_true", help="make it again as the run gets further, until it is finished"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=20,
        metavar="SECONDS",
        help="with --watch: how often to look (default: 20)",
    )

    def work(args: argparse.Namespace, state: Path) -> None:
        root = state
        folder = args.out or root / "report"
        path = watch(root, folder, args.every) if args.watch else write_report(root, folder)[0]
        print(f"report: {path}")

    return run_program(parser, arguments, work)


if __name__ == "__main__":
    sys.exit(main())
