"""What a study prints: its plan with GPU-hours and disk, and where its cells stand."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from sparta.evaluation.tables import NONE, in_figures
from sparta.screen import duration
from sparta.studies.comparison import ConfigurationScore, StudyTable
from sparta.studies.courses import MeanOverSeeds
from sparta.studies.estimate import CellEstimate
from sparta.studies.grid import Grid
from sparta.studies.manifest import CellEntry, StudyManifest

GIB = 2**30
NARROW = (0, 1, 0, 0)
"""Padding that leaves room for long names of levels in a log."""


def show_plan(
    console: Console,
    grid: Grid,
    estimates: Mapping[str, CellEstimate],
    pool_bytes: Sequence[int | None],
    where: str,
    limit: int,
    problems: Mapping[str, str],
) -> None:
    """Print every cell with its GPU-hours and disk, the same by method, and what stands in the way. problems: by cell."""
    table = Table(
        title=f"study {grid.study.name}: {len(grid.cells)} cells", title_justify="left", box=box.SIMPLE_HEAD
    )
    for heading in ("cell", "method", "seed", "initial pool", "needs"):
        table.add_column(heading)
    for heading in ("GPU-hours", "disk"):
        table.add_column(heading, justify="right")
    for cell in grid.cells:
        found = estimates[cell.name]
        table.add_row(
            cell.name,
            cell.recipe.method,
            str(cell.recipe.seed),
            cell.pool or "",
            ", ".join(cell.needs),
            hours(found.gpu_seconds),
            in_bytes(found.disk),
        )
    console.print(table)
    console.print(_by_method(grid, estimates))
    total = sum(found.gpu_seconds for found in estimates.values())
    disks = [found.disk for found in estimates.values()]
    parts = [*disks, *pool_bytes]
    known = None if None in parts else sum(size for size in parts if size is not None)
    lines = {
        "where": f"{where}, at most {limit} GPUs (without GPUs: cores) for all cells together",
        "left out": f"{grid.left_out} cells" if grid.left_out else "",
        "initial pools": f"{len(grid.pools)}, each made and scored once"
        if grid.pools
        else "each cell makes its own",
        "GPU-hours": f"about {hours(total)}, without scoring and without training experts: {duration(total / limit)} if the limit is always used (assumed rates, see cluster.assumed)",
        "disk": f"{in_bytes(known)} of adapters with keep: {grid.study.keep}"
        if known is not None
        else "not known before the models are here (init_pool --fetch)",
    }
    for name, text in lines.items():
        if text:
            console.print(f"{name:15}{text}", markup=False)
    _show_problems(console, problems)


def _by_method(grid: Grid, estimates: Mapping[str, CellEstimate]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method")
    for heading in ("cells", "GPU-hours", "a cell"):
        table.add_column(heading, justify="right")
    for method in dict.fromkeys(cell.recipe.method for cell in grid.cells):
        seconds = [estimates[cell.name].gpu_seconds for cell in grid.cells if cell.recipe.method == method]
        table.add_row(method, str(len(seconds)), hours(sum(seconds)), hours(sum(seconds) / len(seconds)))
    return table


def _show_problems(console: Console, problems: Mapping[str, str]) -> None:
    """Print each problem once, with the cells that have it."""
    by_sentence: dict[str, list[str]] = {}
    for name, sentence in problems.items():
        by_sentence.setdefault(sentence, []).append(name)
    for sentence, names in by_sentence.items():
        shown = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
        console.print(f"cannot begin: {shown}: {sentence}", markup=False)


def show_status(console: Console, manifest: StudyManifest, progress: Mapping[str, str]) -> None:
    """Print where every cell stands. progress: by name, how far its run is."""
    cells = manifest.cells
    counts = ", ".join(
        f"{count} {state}"
        for state in ("done", "running", "waiting", "failed")
        if (count := sum(cell.state == state for cell in cells))
    )
    console.print(f"study {manifest.name}: {len(cells)} cells: {counts}", markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("cell", "state", "progress"):
        table.add_column(heading)
    for heading in ("GPU time", "tokens"):
        table.add_column(heading, justify="right")
    for entry in (*manifest.pools, *cells):
        result = entry.result
        table.add_row(
            entry.name,
            entry.state,
            progress.get(entry.name, ""),
            duration(result.gpu_seconds) if result and result.gpu_seconds else "",
            f"{result.tokens.total:,}" if result and result.tokens.total else "",
        )
    console.print(table)
    for entry in _failed((*manifest.pools, *cells)):
        console.print(f"{entry.name} failed: {entry.result.error if entry.result else ''}", markup=False)


def _failed(entries: Iterable[CellEntry]) -> list[CellEntry]:
    return [entry for entry in entries if entry.state == "failed"]


def show_table(console: Console, table: StudyTable) -> None:
    """Print the scores of every configuration, compared with the reference level."""
    axis, level = table.reference
    if not table.rows:
        console.print("no cell has a score yet", markup=False)
        return
    named = {(row.task, row.metric, row.split) for row in table.rows}
    what = "" if len(named) > 1 else ": {} {} ({})".format(*next(iter(named)))
    title = f"study {table.study}{what}; differences to {axis} {level}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=NARROW)
    for heading in ("configuration", *(["task"] if not what else [])):
        shown.add_column(heading)
    for heading in ("seeds", "score", "initial", "difference", "95 %", "p", "tokens", "time"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        name = " ".join(row.levels.values()) or "all"
        about = "" if row.spread is None else f" ± {in_figures(row.spread, row.top)}"
        shown.add_row(
            f"{name} *" if row.sees_gold else name,
            *([f"{row.task} {row.metric}" + " (validation)" * (row.split != "test")] if not what else []),
            str(len(row.seeds)),
            f"{in_figures(row.mean, row.top)}{about}",
            _initial(row),
            *_difference(row),
            f"{row.tokens:,.0f}",
            duration(row.gpu_seconds) if row.gpu_seconds else f"({duration(row.task_seconds)})",
        )
    console.print(shown)
    notes = [
        "score: of the model chosen on validation, mean over seeds ± their standard deviation; initial: of the best initial model",
        "difference: over common seeds, paired by item; p: Holm's, for all comparisons of this table; tokens, time (of GPUs): mean per cell, without scoring",
        *(
            ["* learns from gold answers, or from a grader that knows them"]
            if any(row.sees_gold for row in table.rows)
            else []
        ),
        *(
            ["time in brackets: of tasks, which had no GPU"]
            if any(not row.gpu_seconds for row in table.rows)
            else []
        ),
        *([f"without a score yet: {', '.join(table.missing)}"] if table.missing else []),
    ]
    for note in notes:
        console.print(note, markup=False)
    _show_courses(console, table, what == "")


def _show_courses(console: Console, table: StudyTable, several_tasks: bool) -> None:
    """Print how the pools developed, one line a configuration with combats or a gain."""
    shown = Table(title="over iterations", title_justify="left", box=box.SIMPLE_HEAD, padding=NARROW)
    for heading in ("configuration", *(["task"] if several_tasks else [])):
        shown.add_column(heading)
    for heading in ("gain", "95 %", "best", "pairs", "r, 95 %", "r in combats"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for course in table.courses:
        gain = course.gain
        best = [course.best[t] for t in sorted({0, len(course.best) - 1})]
        pairs = [course.pairs[t] for t in sorted({0, len(course.pairs) - 1})] if course.pairs else []
        shown.add_row(
            " ".join(course.levels.values()) or "all",
            *([course.task] if several_tasks else []),
            *(("", "") if gain is None else _signed(gain.difference, gain.low, gain.high, course.top)),
            " ".join(in_figures(score, course.top) for score in best),
            " ".join(f"{share:.0%}" for share in pairs),
            _with_interval(course.follows),
            _with_interval(course.follows_combats),
        )
    if not table.courses:
        return
    console.print(shown)
    notes = [
        "gain: test score of the chosen model minus that of the best initial model; best: model of the initial and of the last pool, on validation",
        "pairs: share of combats that made one, first and last iteration",
        "r: of reputation and validation score over models, both means over iterations; in combats: of reputation and the share of right answers there",
    ]
    for note in notes:
        console.print(note, markup=False)


def _with_interval(found: MeanOverSeeds | None) -> str:
    """A correlation, and its interval if it has one."""
    if found is None:
        return ""
    numbers = [number for number in (found.mean, found.low, found.high) if number is not None]
    return " ".join(f"{number:.2f}" for number in numbers)


def _initial(row: ConfigurationScore) -> str:
    """The mean of the initial scores; nothing if one is missing, since it could not be compared with the mean of the others."""
    known = [score for score in row.initial if score is not None]
    return in_figures(fmean(known), row.top) if len(known) == len(row.initial) else NONE


def _difference(row: ConfigurationScore) -> tuple[str, str, str]:
    found = row.difference
    if found is None:
        return "", "", ""
    return *_signed(found.difference, found.low, found.high, row.top), f"{found.p_holm:.3f}"


def _signed(middle: float, low: float, high: float, top: float) -> tuple[str, str]:
    """A difference and its interval, with signs."""
    shown = [f"{'+' if value >= 0 else '-'}{in_figures(abs(value), top)}" for value in (middle, low, high)]
    return shown[0], f"{shown[1]} {shown[2]}"


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g}"


def in_bytes(size: int | None) -> str:
    """A size for people."""
    if size is None:
        return "?"
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
