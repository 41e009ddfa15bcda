"""What a launch prints: the plan with its cost, and the tables after an iteration."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sparta.arena.reputation import Standing
from sparta.cluster.launcher import Launcher
from sparta.cluster.resources import device_of
from sparta.cluster.throughput import measured
from sparta.methods.registry import phase_named
from sparta.phases.base import ArrayPhase
from sparta.pool.checks import notes
from sparta.pool.expert_data import notes_on_sft_data
from sparta.pool.members import adapters_of
from sparta.recipes.schema import Recipe
from sparta.screen import duration
from sparta.status.forecast import Forecast, forecasts, init_pool_work_of, work_of
from sparta.store import files, standings
from sparta.store.records import TrainedExpert
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.store.stats import IterationStats


def show_plan(console: Console, run: Run, first: int, last: int, launcher: Launcher) -> None:
    """What is going to happen, before it does. last: 0 where the initial pool is all that is asked for."""
    recipe, work = run.recipe, work_of(run.recipe)
    m, left = len(run.models), last - max(first, 1) + 1
    founding = forecasts(run, launcher, 0) if first == 0 else []
    expected = forecasts(run, launcher, 1) if last > 0 else []
    arrays = [forecast.phase for forecast in (*founding, *expected) if isinstance(forecast.phase, ArrayPhase)]
    together = max(map(launcher.at_once, arrays), default=1)
    most = max(map(launcher.tasks, arrays), default=1)
    each = sum(forecast.seconds for forecast in expected)
    gpu_seconds = _gpu_seconds(recipe, founding) + left * _gpu_seconds(recipe, expected)
    basis = "as measured in this run" if measured(run) else "assumed, measured after the first iteration"
    votes = f"{'up to ' * (recipe.judging.equal == 'skip')}{work.votes:,}"
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("run", f"{recipe.name} ({run.info.run_id}), seed {recipe.seed}, in {run.state.root}"),
        ("pool", f"{m} models: {', '.join(run.models)}"),
        *(("", note) for note in (*notes(recipe, adapters_of(run)), *notes_on_sft_data(run))),
        ("instructions", f"{len(run.instructions):,} to draw from"),
        *(("rules", remark) for remark in recipe.remarks),
        *([("initial pool", _founding_in_words(run, founding))] if first == 0 else []),
        *(
            [
                (
                    "each iteration",
                    f"{work.combats:,} combats, {work.responses:,} responses, {votes} votes, {m} trainings of up to {work.combats:,} pairs",
                ),
                ("iterations", f"{max(first, 1)} to {last}"),
            ]
            if last
            else []
        ),
        *(
            [("trust", "code that the base model ships is run (pool.trust_remote_code)")]
            if recipe.pool.trust_remote_code
            else []
        ),
        (
            "where",
            f"{launcher.where}, {together} task{'s' * (together != 1)} at once, engine {recipe.engine.kind}",
        ),
        *([("tasks", tasks_in_words([*founding, *expected], launcher))] if most > 1 else []),
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


def _founding_in_words(run: Run, expected: Sequence[Forecast]) -> str:
    """What is trained before the first iteration, and how long that takes by assumed rates."""
    work, seconds = init_pool_work_of(run), sum(forecast.seconds for forecast in expected)
    return (
        f"{work.experts} of them trained from data, {work.rows:,} rows, {work.updates:,} weight updates, "
        f"about {duration(seconds)} (assumed)"
    )


def tasks_in_words(expected: Sequence[Forecast], launcher: Launcher) -> str:
    """How many tasks each array is dealt to: "generate 4 of 16 (more would load longer than they work), judge 16"."""
    return ", ".join(
        f"{forecast.phase.title} {forecast.width.tasks}"
        + (f" of {launcher.tasks(forecast.phase)} ({forecast.width.why})" if forecast.width.why else "")
        for forecast in expected
        if forecast.phase.device == "gpu"
    )


def _gpu_seconds(recipe: Recipe, expected: Sequence[Forecast]) -> float:
    return sum(forecast.busy for forecast in expected if device_of(recipe, forecast.phase) == "gpu")


def show_iteration(console: Console, run: Run, t: int) -> None:
    """The standing after iteration t; after iteration 0 what became of the experts that were trained from data."""
    if t == 0:
        console.print(founding_table(run))
        return
    stats = files.read_json(run.iteration(t).stats, IterationStats)
    after, before = standings.at_end(run, t), standings.at_end(run, t - 1)
    console.print(standing_table(f"iteration {t} of {run.recipe.iterations}", after, before, stats))
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in stats.reasons.items() if count and reason != "pair"
    )
    pairs = stats.reasons.get("pair", 0)
    console.print(
        f"{pairs} preference pairs from {stats.combats} combats"
        + (f" (not used: {reasons})" if reasons else "")
    )
    arrays = [(name, cost) for name, cost in stats.phases.items() if phase_named(name).device == "gpu"]
    if arrays:
        console.print(
            "tasks (model loads): "
            + ", ".join(f"{name} {cost.tasks} ({cost.loads})" for name, cost in arrays)
        )
    for number, what in (
        (
            sum(judge.cut for judge in stats.judges.values()),
            "votes saw a response whose end was cut to fit the judge's context",
        ),
        (stats.votes_saved, "votes were not asked for: the two answers were equal, or one was empty"),
        (stats.too_long, "prompts left no room for a response in the context"),
        (
            sum(stats.dropped_pairs.values()),
            "pairs could not be trained on (longer than dpo.max_length, or without a token)",
        ),
        (stats.uniform_juries, "juries had no weight and counted equally"),
    ):
        if number:
            console.print(f"  {number:,} {what}")


def founding_table(run: Run) -> Table:
    """What every expert was trained on from data, and its losses."""
    rows = read_shards(run.iteration(0).training, TrainedExpert)
    table = Table(title="initial pool: experts from data", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("model", "data"):
        table.add_column(heading)
    for heading in ("rows", "dropped", "updates", "first loss", "last loss", "seconds"):
        table.add_column(heading, justify="right")
    for name, lessons in run.sft_data.items():
        row = rows[name]
        losses = ("" if loss is None else f"{loss:.3f}" for loss in (row.first_loss, row.last_loss))
        table.add_row(
            name,
            lessons.data,
            f"{row.rows:,}",
            f"{row.dropped:,}",
            f"{row.steps:,}",
            *losses,
            f"{row.seconds:.0f}",
        )
    return table


def standing_table(
    title: str, after: Mapping[str, Standing], before: Mapping[str, Standing], stats: IterationStats
) -> Table:
    """Reputation, deviation, judging weight, combats won, missing votes and loss of every model, best reputation first."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("model")
    for heading in ("reputation", "change", "deviation", "judging weight", "won", "missing votes", "loss"):
        table.add_column(heading, justify="right")
    for name, standing in sorted(after.items(), key=lambda entry: -entry[1].reputation):
        judge = stats.judges[name]
        loss = stats.mean_losses.get(name)
        table.add_row(
            name,
            f"{standing.reputation:.1f}",
            f"{standing.reputation - before[name].reputation:+.1f}",
            f"{standing.deviation:.2f}",
            f"{standing.weight:.1f}",
            f"{stats.wins[name]}/{stats.wins[name] + stats.losses[name]}",
            f"{judge.missing}/{judge.votes}",
            "" if loss is None else f"{loss:.3f}",
        )
    return table
