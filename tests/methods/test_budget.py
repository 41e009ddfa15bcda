"""Tokens are counted alike for every method, and a run with a budget uses as many as the run that it names."""

from pathlib import Path

import msgspec
import pytest
from support.one_model_runs import CASES, ROWS, write_case
from support.openings import begin_or_continue
from support.scripted_run import advance, typed

from sparta.errors import SpartaError
from sparta.methods.base import Lengths
from sparta.methods.budget import budgeted
from sparta.methods.registry import method_of, methods
from sparta.phases.merge import read_pairs
from sparta.phases.single.draw import prompts_of
from sparta.phases.single.rows import Candidate, Draw, read_draws
from sparta.recipes.baseline import Budget
from sparta.recipes.load import load
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Trained
from sparta.store.run import Run
from sparta.store.run_budget import budget_in_words, spent
from sparta.store.shards import ShardWriter, iter_shards
from sparta.store.stats import IterationStats, TokenCounts


def played(folder: Path, method: str, *settings: str, last: int = 1, **changes: object) -> Run:
    recipe = budgeted(load(write_case(folder, method, **changes), settings))
    run = begin_or_continue(StateDir(folder / f"state-{recipe.method}"), recipe)
    for t in range(1, last + 1):
        advance(run, t)
    return run


@pytest.fixture(scope="module")
def sparta(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two iterations of Sparta on three models."""
    return played(tmp_path_factory.mktemp("sparta"), "self_rewarding", "method=sparta", last=2, combats=90)


def test_the_tokens_of_sparta_are_those_of_responses_votes_and_trainings(sparta: Run) -> None:
    kinds = method_of(sparta.recipe).row_types(sparta)
    generated = read = 0
    for name in ("responses", "votes"):
        for row in iter_shards(sparta.iteration(1).root / name, kinds[name]):
            one = msgspec.to_builtins(row)
            generated += one["new_tokens"]
            read += one["prompt_tokens"] * one.get("tries", 1)
    trained = sum(row.tokens for row in iter_shards(sparta.iteration(1).training, Trained))
    counted = files.read_json(sparta.iteration(1).stats, IterationStats).tokens
    assert counted == TokenCounts(generated, read, trained)
    assert min(generated, read, trained) > 0


@pytest.mark.parametrize("method", CASES)
def test_every_method_is_counted_in_the_same_way(method: str, tmp_path: Path) -> None:
    run = played(tmp_path, method)
    counted = files.read_json(run.iteration(1).stats, IterationStats).tokens
    rows = {
        name: [msgspec.to_builtins(row) for row in iter_shards(run.iteration(1).root / name, of)]
        for name, of in method_of(run.recipe).row_types(run).items()
        if name in ROWS[method]
    }
    every = [row for found in rows.values() for row in found]
    assert counted.generated == sum(row.get("new_tokens", 0) for row in every)
    assert counted.read == sum(
        row.get("prompt_tokens", 0) * row.get("tries", 1) + row.get("read_tokens", 0) for row in every
    )
    [training] = rows["training"]
    assert counted.trained == training["tokens"] > 0
    assert spent(run) == counted


@pytest.mark.parametrize("method", sorted(set(CASES) - {"sppo"}))
def test_a_run_with_a_budget_takes_as_many_tokens_as_the_other(
    method: str, sparta: Run, tmp_path: Path
) -> None:
    run = played(tmp_path, method, f"baseline.budget.like={sparta.state.root}", last=4, iterations=4)
    budget = spent(sparta).total // 2
    assert run.recipe.baseline.budget is not None and run.recipe.baseline.budget.tokens == budget
    first = files.read_json(run.iteration(1).stats, IterationStats)
    assert first.combats == run.recipe.combats and first.tokens.total <= 1.1 * budget
    assert spent(run).total == pytest.approx(4 * budget, rel=0.05)
    used = spent(run, last=3).total
    share = f"{used / (3 * budget):.1%}".replace("%", " %")
    notes = method_of(run.recipe).summary(run, 3).notes
    assert notes[-1] == f"  budget: {used:,} of {3 * budget:,} tokens spent so far ({share})"
    assert len(read_pairs(run, 1)) <= run.recipe.combats * 2
    assert f"{budget:,} tokens per iteration" in budget_in_words(run.recipe)


def test_later_iterations_make_up_for_what_was_left_over_by_hand(sparta: Run, tmp_path: Path) -> None:
    run = played(tmp_path, "spin", f"baseline.budget.like={sparta.state.root}", last=1)
    assert run.recipe.baseline.budget is not None and run.recipe.baseline.budget.tokens is not None
    used = spent(run)
    # The pairs of the first iteration are trained on again.
    left = 2 * run.recipe.baseline.budget.tokens - used.total - used.trained
    each = used.total / run.recipe.combats
    # Nothing depends on stats.json, which no hash covers.
    run.iteration(1).stats.unlink()
    advance(run, 2, "draw")
    assert len(read_draws(run, 2)) == int(left / each)


@pytest.mark.parametrize(
    ("rows", "planned"),
    [
        # 10 prompts of 30 tokens leave 700 of 2 x 500; at 30 each that makes 23.
        ([(10, 30)], 23),
        # Then prompts of 20 tokens: 1500 - 300 - 460 are left for the third, at 20 each.
        ([(10, 30), (23, 20)], 37),
        # Two prompts do not tell the cost; the latest 12 of them took 300 + 2 x 100.
        ([(10, 30), (2, 100)], 24),
        # More was spent than there is.
        ([(10, 30), (23, 100)], 1),
    ],
)
def test_the_next_number_of_prompts_follows_the_cost_of_the_latest_by_hand(
    rows: list[tuple[int, int]], planned: int, tmp_path: Path
) -> None:
    recipe = load(write_case(tmp_path, "self_rewarding", combats=10))
    filled = recipe.baseline.model_copy(update={"budget": Budget(like="elsewhere", tokens=500)})
    run = begin_or_continue(
        StateDir(tmp_path / "state"), recipe.model_copy(update={"baseline": filled, "iterations": 9})
    )
    for t, (prompts, tokens) in enumerate(rows, start=1):
        draws = [Draw(f"{t:02d}-{n}", f"q{n}", ()) for n in range(prompts)]
        files.write_rows(run.iteration(t).plan, draws)
        with ShardWriter(run.iteration(t).root / "candidates", 0, 0) as writer:
            for draw in draws:
                writer.write(Candidate(draw.draw_id, 0, "model1", "x", (), "", tokens - 1, 1, "stop"))
    assert prompts_of(run, len(rows) + 1) == planned


def test_a_run_that_was_begun_with_another_number_of_tokens_is_another_run(
    sparta: Run, tmp_path: Path
) -> None:
    run = played(tmp_path, "spin", f"baseline.budget.like={sparta.state.root}", last=0)
    budget = run.recipe.baseline.budget
    assert budget is not None and budget.tokens is not None
    for changed, differs in (({"tokens": budget.tokens + 1}, True), ({"like": "/elsewhere"}, False)):
        other = budget.model_copy(update=changed)
        recipe = run.recipe.model_copy(
            update={"baseline": run.recipe.baseline.model_copy(update={"budget": other})}
        )
        assert bool(run.recipe.differences(recipe)) == (recipe.hash != run.recipe.hash) == differs


def test_what_a_prompt_takes_by_hand() -> None:
    recipe = load("toy/self_rewarding", ["baseline.candidates=4", "baseline.rounds=3", "dpo.epochs=1"])
    lengths = Lengths(prompt=10, answer=5, judge_prompt=20, vote=8)
    known = methods()
    assert known["self_rewarding"].tokens_of_prompt(recipe, lengths) == 4 * 15 + 12 * 28 + 30
    assert known["spin"].tokens_of_prompt(recipe, lengths) == 15 + 2 * 30
    assert known["meta_rewarding"].tokens_of_prompt(recipe, lengths) == (
        4 * 15 + 12 * 28 + 6 * (28 + 16) + 30 + 2 * 28
    )
    assert known["sppo"].tokens_of_prompt(recipe, lengths) == 4 * 15 + 30
    assert known["sparta"].tokens_of_prompt(recipe, lengths) is None


def test_a_budget_that_cannot_be_had_is_refused(sparta: Run, tmp_path: Path) -> None:
    like = f"baseline.budget.like={sparta.state.root}"
    recipe = write_case(tmp_path, "self_rewarding")
    with pytest.raises(SpartaError, match="do not suffice for one prompt"):
        budgeted(load(recipe, [like, "baseline.rounds=100000"]))
    with pytest.raises(SpartaError, match="the method sparta takes no budget"):
        budgeted(load(recipe, [like, "method=sparta"]))
    with pytest.raises(SpartaError, match=r"baseline.budget.like: .* holds no run"):
        budgeted(load(recipe, [f"baseline.budget.like={tmp_path / 'nowhere'}"]))
    begun = begin_or_continue(StateDir(tmp_path / "begun"), load(recipe))
    with pytest.raises(SpartaError, match="has no iteration with token counts"):
        budgeted(load(recipe, [f"baseline.budget.like={begun.state.root}"]))


def test_the_command_says_what_the_budget_is(sparta: Run, tmp_path: Path) -> None:
    recipe = write_case(tmp_path, "self_rewarding")
    where = ("--recipe", recipe, "--state", tmp_path / "state", "--dry-run")
    paper = typed("launch", *where)
    assert "the paper's: 8 prompts per iteration" in " ".join(paper.stdout.split()), paper.stderr
    equal = typed("launch", *where, "--set", f"baseline.budget.like={sparta.state.root}")
    assert "Budget: " in equal.stdout and "tokens per iteration, as in" in equal.stdout, equal.stderr
    status = typed("status", sparta.state.root)
    assert f"tokens: {spent(sparta).in_words}" in status.stdout, status.stderr
