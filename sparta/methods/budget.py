"""Token budgets: a run gets as many tokens per iteration as another run used, so that methods are compared at equal cost.

A budget is resolved when a recipe is loaded: the frozen recipe holds the tokens, and the prompts of the first iteration. The most tokens per
prompt are estimated from the lengths that the other run measured. Later iterations use the measured cost (`sparta.phases.single.draw.prompts_of`).
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from sparta.errors import SpartaError
from sparta.methods.base import Lengths
from sparta.methods.registry import method_of
from sparta.phases.single.rows import CANDIDATES, JUDGEMENTS, Candidate, Judgement
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.run_budget import spent
from sparta.store.shards import iter_shards


def budgeted(recipe: Recipe, say: Callable[[str], object] = lambda _: None) -> Recipe:
    """`recipe` with the number of prompts that its budget allows; unchanged if it has no budget, or a resolved one. `say` gets the numbers.

    Raises SpartaError if the other run counted no tokens, if the method takes no budget, or if the tokens do not suffice for one prompt.
    """
    budget = recipe.baseline.budget
    if budget is None or budget.tokens is not None:
        return recipe
    run = _other(Path(budget.like))
    done = [t for t in run.state.committed() if t > 0]
    total = spent(run)
    if not done or not total.total:
        raise SpartaError(
            f"baseline.budget.like: {budget.like} has no iteration with token counts: name the state of a run that has one"
        )
    tokens = total.total // len(done)
    each = method_of(recipe).tokens_of_prompt(recipe, _lengths(run, done))
    if each is None:
        raise SpartaError(
            f"baseline.budget: the method {recipe.method} takes no budget, because combats sets its cost: remove the key"
        )
    prompts = int(tokens // each)
    if prompts < 1:
        raise SpartaError(
            f"baseline.budget: {tokens:,} tokens per iteration, as in {budget.like}, do not suffice for one prompt, which takes up to about {each:,.0f}: lower "
            "baseline.candidates or baseline.rounds, or name another run"
        )
    say(
        f"Budget: {tokens:,} tokens per iteration, as in {budget.like}; a prompt takes at most about {each:,.0f}, so the first iteration has {prompts:,} "
        "prompts; later iterations use the measured cost of a prompt."
    )
    filled = recipe.baseline.model_copy(update={"budget": budget.model_copy(update={"tokens": tokens})})
    return recipe.model_copy(update={"combats": prompts, "baseline": filled})


def _other(folder: Path) -> Run:
    try:
        return Run.open(StateDir(folder))
    except SpartaError as error:
        raise SpartaError(f"baseline.budget.like: {error}") from None


def _lengths(run: Run, done: list[int]) -> Lengths:
    """Mean lengths in the last committed iteration of `run`, for any method."""
    root = run.iteration(max(done)).root
    answers: list[Response | Candidate] = [
        *iter_shards(root / "responses", Response),
        *iter_shards(root / CANDIDATES, Candidate),
    ]
    votes: list[Vote | Judgement] = [
        *iter_shards(root / "votes", Vote),
        *iter_shards(root / JUDGEMENTS, Judgement),
    ]
    prompt, answer = (fmean(row.prompt_tokens for row in answers), fmean(row.new_tokens for row in answers))
    if not votes:
        # No votes were cast: assume a judge that reads prompt and answer, and writes the maximum.
        return Lengths(prompt, answer, prompt + answer, float(run.recipe.judging.max_new_tokens))
    read, written = (
        fmean(row.prompt_tokens * row.tries for row in votes),
        fmean(row.new_tokens for row in votes),
    )
    return Lengths(prompt, answer, read, written)
