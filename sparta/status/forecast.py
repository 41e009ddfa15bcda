"""What a run will do and what that costs: counted from the recipe, timed from what this very run has measured so far.

Until an iteration has run, the rates are those that the recipe assumes. What is measured is the throughput of a task and the seconds of a
load, phase by phase, so that the estimate holds for other numbers of tasks as well.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median

from sparta.chat.judge_prompts import question_text
from sparta.cluster.launcher import Launcher
from sparta.cluster.parallelism import TaskCount, task_count_for
from sparta.cluster.resources import runs_an_engine
from sparta.cluster.throughput import Measured, measured, rates_of
from sparta.engines import token_count
from sparta.methods.registry import phases_of
from sparta.phases import token_costs
from sparta.phases.base import ArrayPhase, Phase
from sparta.phases.train_experts import TrainExperts, tokens_to_learn, updates_of
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.store.stats import PhaseStats


@dataclass(frozen=True)
class IterationWork:
    """One iteration in numbers. tokens: most that may be generated, prompts not counted."""

    combats: int
    responses: int
    votes: int
    pairs: int
    updates: int
    tokens: int


def work_of(recipe: Recipe) -> IterationWork:
    """What one iteration of `recipe` comes to, if every combat makes a pair."""
    m, n = len(recipe.pool.models), recipe.combats
    votes = 2 * n * (m - 2)
    step = recipe.dpo.batch_size * recipe.dpo.accumulation
    new = (
        0
        if recipe.judging.mode == "expected" and not recipe.judging.working
        else recipe.judging.max_new_tokens
    )
    return IterationWork(
        combats=n,
        responses=2 * n,
        votes=votes,
        pairs=n * m,
        updates=-(-n // step) * m * recipe.dpo.epochs,
        tokens=2 * n * recipe.generation.max_new_tokens + votes * new,
    )


@dataclass(frozen=True)
class InitPoolWork:
    """What is to be trained before the first iteration, in numbers, if no row is dropped. tokens: about, of all epochs."""

    experts: int
    rows: int
    updates: int
    tokens: float


def init_pool_work_of(run: Run) -> InitPoolWork:
    """What the experts of the initial pool that are trained from data come to."""
    experts = [(model, run.sft_data[model.name]) for model in run.recipe.pool.experts]
    return InitPoolWork(
        experts=len(experts),
        rows=sum(lessons.rows for _, lessons in experts),
        updates=sum(updates_of(run.recipe, model, lessons) for model, lessons in experts),
        tokens=sum(tokens_to_learn(run.recipe, model, lessons) for model, lessons in experts),
    )


def seconds_an_iteration(run: Run) -> float | None:
    """Median duration of the committed iterations, in seconds; None before there is one."""
    durations = [sum(phase.seconds for phase in phases.values()) for phases in measured(run)]
    return sorted(durations)[len(durations) // 2] if durations else None


@dataclass(frozen=True)
class Forecast:
    """One phase of one iteration, as it is expected. seconds: from its first task's start to its last one's end; busy: of all tasks."""

    phase: Phase
    width: TaskCount
    seconds: float
    busy: float


def forecasts(run: Run, launcher: Launcher, t: int) -> list[Forecast]:
    """The phases of the whole iteration t on the tasks that `launcher` has, timed by what this run has measured, or by assumed rates."""
    found = measured(run)
    return [
        _of_array(run, phase, launcher, found)
        if isinstance(phase, ArrayPhase)
        else Forecast(
            phase, TaskCount(1), *([_typical(found, phase.name, lambda stats: stats.seconds) or 0.0] * 2)
        )
        for phase in phases_of(run.recipe, t)
    ]


def _of_array(run: Run, phase: ArrayPhase, launcher: Launcher, found: Measured) -> Forecast:
    cluster, most, at_once = run.recipe.cluster, launcher.tasks(phase), launcher.at_once(phase)
    if not runs_an_engine(phase):
        seconds = _of_trainings(run, phase, found)
        width = task_count_for(cluster, None, 0.0, len(seconds), most)
        rounds = -(-len(seconds) // min(width.tasks, at_once))
        return Forecast(phase, width, max(max(seconds), fmean(seconds) * rounds), sum(seconds))
    rates = rates_of(run, phase, found)
    cost = _typical(found, phase.name, lambda stats: stats.cost) or _assumed_cost(run, phase)
    width = task_count_for(cluster, rates, cost, _bundles(run, phase), most)
    together = min(width.tasks, at_once)
    # One process keeps its engine from phase to phase, so that a phase may load nothing.
    loads = _typical(found, phase.name, lambda stats: float(stats.loads)) if most == 1 else None
    starts = width.tasks if loads is None else loads
    return Forecast(
        phase,
        width,
        rates.seconds(cost) / together + rates.start_seconds * math.ceil(starts / together),
        rates.seconds(cost) + rates.start_seconds * starts,
    )


def _of_trainings(run: Run, phase: ArrayPhase, found: Measured) -> list[float]:
    """Seconds that a task has for each model that `phase` trains."""
    assumed = run.recipe.cluster.assumed
    if isinstance(phase, TrainExperts):
        return [item.cost / assumed.learned_tokens_per_second for item in phase.work(run, 0)]
    each = _typical(found, phase.name, lambda stats: stats.busy / max(stats.items, 1))
    if each is None:
        each = run.recipe.combats * run.recipe.dpo.epochs / assumed.pairs_per_second
    return [each] * len(run.models)


def _typical(found: Measured, name: str, of: Callable[[PhaseStats], float]) -> float | None:
    """Median over the measured iterations; None where the phase was measured in none."""
    values = [of(phases[name]) for phases in found if name in phases]
    return median(values) if values else None


def _bundles(run: Run, phase: Phase) -> int:
    """What an iteration of `phase` is dealt in, at most."""
    work = work_of(run.recipe)
    return {"generate": work.responses, "judge": work.votes // 2}.get(phase.name, work.combats)


def _assumed_cost(run: Run, phase: Phase) -> float:
    """What the responses and votes of an iteration cost, before there is one: half of the tokens that they may have, all of a verdict's."""
    recipe, work = run.recipe, work_of(run.recipe)
    characters = fmean(len(question_text(instruction.messages)) for instruction in run.instructions)
    prompt, response = characters / token_count.CHARACTERS_A_TOKEN, recipe.generation.max_new_tokens / 2
    price, frame = (
        recipe.cluster.assumed.prompt_token,
        len(token_costs.wrapping(recipe)) / token_count.CHARACTERS_A_TOKEN,
    )
    verdicts = (work.tokens - work.responses * recipe.generation.max_new_tokens) or work.votes
    parts = {
        "generate": work.responses * (response + price * prompt),
        "judge": verdicts + work.votes * price * (prompt + response + frame),
    }
    return parts.get(phase.name, sum(parts.values()))
