"""The tokens that a run spent and those that it was given, for tables that compare runs."""

import msgspec

from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TokenCounts


class RunBudget(msgspec.Struct, frozen=True):
    """What a run cost. method: of its recipe. budget: what set the number of prompts, in words. tokens: of its committed iterations."""

    method: str
    budget: str
    iterations: int
    tokens: TokenCounts

    @property
    def in_words(self) -> str:
        counted = self.tokens.in_words if self.tokens.total else "not counted by the version that made them"
        return f"{self.method}, budget {self.budget}; tokens of {self.iterations} iterations: {counted}"


def budget_of(run: Run) -> RunBudget:
    """The budget of `run` and what it has spent so far."""
    iterations = sum(t > 0 for t in run.state.committed())
    return RunBudget(run.recipe.method, budget_in_words(run.recipe), iterations, spent(run))


def budget_in_words(recipe: Recipe) -> str:
    """What sets the number of prompts."""
    budget = recipe.baseline.budget
    if budget is None or budget.tokens is None:
        return f"the paper's: {recipe.combats:,} prompts per iteration"
    return f"{budget.tokens:,} tokens per iteration, as in {budget.like}: {recipe.combats:,} prompts in the first"


def spent(run: Run, last: int | None = None) -> TokenCounts:
    """The tokens of all committed iterations of `run` after the initial pool, up to `last`. Iterations of earlier versions have no counts and add nothing."""
    total = TokenCounts()
    for t in run.state.committed():
        counted = t > 0 and (last is None or t <= last)
        stats = files.read_measured(run.iteration(t).stats, IterationStats) if counted else None
        total += stats.tokens if stats is not None else TokenCounts()
    return total
