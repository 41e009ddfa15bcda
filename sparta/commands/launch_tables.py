"""What a launch prints: the plan with its cost, and the tables after an iteration."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from rich import box
from rich.console import Console
from rich.table import Table

from sparta.cluster.account import in_order
from sparta.cluster.launcher import Launcher
from sparta.cluster.throughput import measured
from sparta.errors import printable
from sparta.methods.base import IterationSummary, summary_of_pool
from sparta.methods.registry import method_of, phase_named, phases_of
from sparta.pool.checks import notes
from sparta.pool.expert_data import notes_on_sft_data
from sparta.pool.members import adapters_of
from sparta.recipes.schema import Recipe
from sparta.screen import duration
from sparta.status.account_table import AccountRow, account_tables
from sparta.status.forecast import Forecast, expected_account, forecasts
from sparta.store import files
from sparta.store.run import Run
from sparta.store.run_budget import budget_in_words
from sparta.store.stats import IterationStats

SHOWN = 80
"""Characters of the first instruction."""


def show_plan(
    console: Console, run: Run, first: int, last: int, launcher: Launcher, checked: bool = True
) -> None:
    """Print what the launch will do. last: 0 where only the initial pool is requested. checked: whether models and data are there, to be described."""
    recipe, work = run.recipe, method_of(run.recipe).work(run)
    m, left = len(run.models), last - max(first, 1) + 1
    pool = forecasts(run, launcher, 0) if first == 0 else []
    expected = forecasts(run, launcher, 1) if last > 0 else []
    arrays = [forecast.phase for forecast in (*pool, *expected) if forecast.phase.is_array]
    together = max(map(launcher.at_once, arrays), default=1)
    most = max(map(launcher.tasks, arrays), default=1)
    each = sum(forecast.seconds for forecast in expected)
    gpu_seconds = _gpu_seconds(recipe, pool) + left * _gpu_seconds(recipe, expected)
    basis = "as measured in this run" if measured(run) else "assumed, measured after the first iteration"
    table = Table.grid(padding=(0, 2))
    table.add_column()
    # A path that is too long is broken, not cut.
    table.add_column(overflow="fold")
    for name, value in (
        ("run", f"{recipe.name} ({run.info.run_id}), seed {recipe.seed}, in {run.state.root}"),
        ("pool", f"{m} models: {', '.join(run.models)}"),
        *(("", note) for note in (_notes(run) if checked else ())),
        *([("instructions", _instructions_in_words(run))] if checked else []),
        *(("rules", remark) for remark in recipe.remarks),
        *([("initial pool", _pool_in_words(run, pool))] if first == 0 else []),
        *(
            [
                (
                    "each iteration",
                    ", ".join(work.what),
                ),
                ("budget", budget_in_words(recipe)),
                ("iterations", f"{max(first, 1)} to {last}"),
            ]
            if last
            else []
        ),
        *(
            [("trust", "runs code that the base model ships (pool.trust_remote_code)")]
            if recipe.pool.trust_remote_code
            else []
        ),
        (
            "where",
            f"{launcher.where}, {together} task{'s' * (together != 1)} at once, engine {recipe.engine.kind}",
        ),
        *zip(["container", *[""] * len(launcher.container)], launcher.container, strict=False),
        *([("tasks", tasks_in_words([*pool, *expected], launcher))] if most > 1 else []),
        *(
            [
                (
                    "estimate",
                    f"{work.tokens * left:,} new tokens at most, {work.updates * left:,} weight updates, about {duration(each * left)} ({basis})",
                )
            ]
            if last
            else []
        ),
        *([("GPU-hours", f"about {gpu_seconds / 3600:.2g} ({basis})")] if launcher.survives else []),
    ):
        table.add_row(name, value)
    console.print(table)
    rows = [AccountRow("initial pool", expected_account(run, launcher, pool))] if pool else []
    if expected:
        each_account = expected_account(run, launcher, expected)
        rows.append(AccountRow("each iteration", each_account))
        if left > 1:
            rows.append(AccountRow(f"all {left}", reduce(add, [each_account] * left)))
    for account in account_tables(f"estimate by part ({basis})", rows):
        console.print(account)


def _notes(run: Run) -> list[str]:
    """What people should know of the pool and the experts' data, a sentence each."""
    return [*notes(run.recipe, adapters_of(run)), *notes_on_sft_data(run)]


def _instructions_in_words(run: Run) -> str:
    """Their number, and the beginning of the first, so that a wrong column is seen before anything starts."""
    first = " ".join(printable(run.instructions[0].messages[-1].content).split())
    shown = first if len(first) <= SHOWN else f"{first[:SHOWN]}..."
    return f"{len(run.instructions):,} to draw from, the first: {shown}"


def _pool_in_words(run: Run, expected: Sequence[Forecast]) -> str:
    """What is trained before the first iteration, and how long that takes at the assumed rates."""
    work = [forecast.phase.expected(run, 0) for forecast in expected]
    updates, seconds = sum(one.updates for one in work), sum(forecast.seconds for forecast in expected)
    what = ", ".join(one.what for one in work if one.what)
    return f"{what}, {updates:,} weight updates, about {duration(seconds)} (assumed)"


def tasks_in_words(expected: Sequence[Forecast], launcher: Launcher) -> str:
    """The number of tasks of each array: "generate 4 of 16 (more would load longer than they work), judge 16"."""
    return ", ".join(
        f"{forecast.phase.title} {forecast.width.tasks}"
        + (f" of {launcher.tasks(forecast.phase)} ({forecast.width.why})" if forecast.width.why else "")
        for forecast in expected
        if forecast.phase.device == "gpu"
    )


def _gpu_seconds(recipe: Recipe, expected: Sequence[Forecast]) -> float:
    return sum(forecast.busy for forecast in expected if forecast.phase.runs_on(recipe) == "gpu")


def show_iteration(console: Console, run: Run, t: int) -> None:
    """Print the method's summary of iteration t and its model loads; for iteration 0, a summary of the experts trained from data."""
    if t == 0:
        _print_summary(console, summary_of_pool(run))
        return
    stats = files.read_measured(run.iteration(t).stats, IterationStats)
    if stats is None:
        console.print(
            f"iteration {t} of {run.recipe.iterations} is committed; its stats.json is lost", markup=False
        )
        return
    _print_summary(console, method_of(run.recipe).summary(run, t))
    account = stats.account and in_order(stats.account, phases_of(run.recipe, t))
    for table in account_tables("where the time went", [AccountRow(f"iteration {t}", account)]):
        console.print(table)
    arrays = [(name, cost) for name, cost in stats.phases.items() if phase_named(name).device == "gpu"]
    if arrays:
        loads = ", ".join(f"{name} {cost.tasks} ({cost.loads})" for name, cost in arrays)
        console.print(f"tasks (model loads): {loads}")
    if stats.tokens.total:
        console.print(f"tokens: {stats.tokens.in_words}")


def has_few_pairs(run: Run, t: int) -> bool:
    """Whether iteration t made so few pairs that training on them had next to no effect."""
    stats = files.read_measured(run.iteration(t).stats, IterationStats)
    return stats is not None and bool(stats.warning)


def _print_summary(console: Console, summary: IterationSummary) -> None:
    table = Table(title=summary.title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, heading in enumerate(summary.columns):
        table.add_column(heading, justify="left" if number < summary.text_columns else "right")
    for row in summary.rows:
        table.add_row(*row)
    console.print(table)
    for note in summary.notes:
        console.print(note, markup=False)
