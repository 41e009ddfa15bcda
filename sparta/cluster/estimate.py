"""What a run will do and what that costs: counted from the recipe, timed from what this very run has measured so far."""

from dataclasses import dataclass

from sparta.methods.registry import phase_named
from sparta.phases.stats import IterationStats
from sparta.recipe import Recipe
from sparta.store import files
from sparta.store.run import Run


@dataclass(frozen=True)
class Work:
    """One iteration in numbers. tokens: most that may be generated, prompts not counted."""

    combats: int
    responses: int
    votes: int
    pairs: int
    updates: int
    tokens: int


def work_of(recipe: Recipe) -> Work:
    """What one iteration of `recipe` comes to, if every combat makes a pair."""
    m, n = len(recipe.pool.models), recipe.combats
    votes = 2 * n * (m - 2)
    step = recipe.dpo.batch_size * recipe.dpo.accumulation
    new = (
        0
        if recipe.judging.mode == "expected" and not recipe.judging.working
        else recipe.judging.max_new_tokens
    )
    return Work(
        combats=n,
        responses=2 * n,
        votes=votes,
        pairs=n * m,
        updates=-(-n // step) * m * recipe.dpo.epochs,
        tokens=2 * n * recipe.generation.max_new_tokens + votes * new,
    )


def seconds_an_iteration(run: Run) -> float | None:
    """Median duration of the committed iterations, in seconds; None before there is one."""
    stats = [run.iteration(t).stats for t in run.state.committed() if t > 0]
    measured = [files.read_json(path, IterationStats).phases for path in stats if path.is_file()]
    # There are no phases where the driver was killed between the commit and the measuring.
    durations = [sum(phase.seconds for phase in phases.values()) for phases in measured if phases]
    return sorted(durations)[len(durations) // 2] if durations else None


def guess_seconds(recipe: Recipe, tasks: int) -> float:
    """Duration of one iteration before anything was measured, in seconds, from the recipe's assumed rates."""
    work, assumed = work_of(recipe), recipe.cluster.assumed
    return (
        work.tokens / 2 / assumed.tokens_per_second
        + work.pairs * recipe.dpo.epochs / assumed.pairs_per_second
    ) / max(tasks, 1)


def gpu_seconds_an_iteration(run: Run) -> float:
    """What the GPUs are busy for in one iteration, in seconds: as measured where an iteration has run, else from the assumed rates."""
    stats = [run.iteration(t).stats for t in run.state.committed() if t > 0]
    measured = [files.read_json(path, IterationStats).phases for path in stats if path.is_file()]
    busy = [
        sum(cost.busy for name, cost in phases.items() if phase_named(name).device == "gpu")
        for phases in measured
        if phases
    ]
    return sorted(busy)[len(busy) // 2] if busy else guess_seconds(run.recipe, 1)


def duration(seconds: float) -> str:
    """In words that people use: 40 s, 3 min, 5 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"
