"""Prefer: the probability that each candidate beats each other one, from a preference model or the task's own grader (SPPO)."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparta.chat.judge_prompts import question_text
from sparta.chat.template import Message
from sparta.engines.factory import close_engine_on_gpu
from sparta.engines.preference_model import PreferenceScorer, PreferenceTexts, Preferred
from sparta.errors import SpartaError
from sparta.phases import token_costs
from sparta.phases.base import Device, Expected, RowPhase, Sink, WorkItem
from sparta.phases.single.best_and_worst import undecided
from sparta.phases.single.gold import read_gold, task_of
from sparta.phases.single.rows import WIN_RATES, Candidate, Draw, WinRates, read_candidates, read_draws
from sparta.phases.single.sample import Sample, usual_length
from sparta.pool.members import locate
from sparta.recipes.baseline import PreferenceModel
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.training.loading import resolve_device, resolve_dtype

Probabilities = tuple[tuple[float | None, ...], ...]
"""[n, n]: the probability that the row's candidate beats the column's; None if unknown."""


def preference_of(recipe: Recipe) -> PreferenceModel:
    """The preference section of `recipe`; the method refuses a recipe without one."""
    assert recipe.baseline.preference is not None
    return recipe.baseline.preference


def texts_of(recipe: Recipe) -> PreferenceTexts:
    """The input side of the preference model of `recipe`. Raises SpartaError if the model is unusable."""
    preference = preference_of(recipe)
    assert preference.kind != "gold" and preference.model is not None
    return PreferenceTexts(
        preference.kind, locate(preference.model, recipe.pool.folder), recipe.pool.trust_remote_code
    )


def by_grades(grades: Sequence[float | None], noise: float) -> Probabilities:
    """The better grade wins with probability 1 - noise, equal grades with 1/2; None if one of the two has no grade."""

    def beats(i: int, j: int) -> float | None:
        mine, other = grades[i], grades[j]
        if mine is None or other is None:
            return None
        return 0.5 if mine == other else 1 - noise if mine > other else noise

    n = range(len(grades))
    return tuple(tuple(beats(i, j) for j in n) for i in n)


def spread(preferred: Preferred, places: Sequence[int | None]) -> Probabilities:
    """Expand the probabilities of distinct answers to all candidates. places: the index of each candidate's answer; None for no answer."""
    table = preferred.probabilities
    return tuple(tuple(None if i is None or j is None else table[i][j] for j in places) for i in places)


class Prefer(RowPhase):
    name = "prefer"
    rows = WinRates

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).root / WIN_RATES

    def runs_on(self, recipe: Recipe) -> Device:
        return "cpu" if preference_of(recipe).kind == "gold" else "gpu"

    def gpus(self, recipe: Recipe) -> int:
        return int(self.runs_on(recipe) == "gpu")

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """One item per prompt, except those known to have only equal or empty candidates."""
        count, known = self._sample.count(run.recipe), read_candidates(run, t)
        return [
            WorkItem(draw.draw_id, 1.0, group="")
            for draw in read_draws(run, t)
            if len(known.get(draw.draw_id, ())) < count
            or not undecided([row.answer for row in known[draw.draw_id]])
        ]

    def final(self, run: Run, t: int) -> bool:
        return not self._sample.missing(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        recipe = run.recipe
        n = self._sample.count(recipe)
        read = recipe.combats * (0 if preference_of(recipe).kind == "gold" else _texts_read(recipe, n))
        reading = token_costs.expected_reading(run, recipe.generation.max_new_tokens / 2)
        return Expected(
            f"win rates of up to {recipe.combats:,} prompts",
            bundles=recipe.combats,
            cost=max(1, read) * reading,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        texts = {draw.draw_id: question_text(draw.messages) for draw in read_draws(run, t)}
        usual = usual_length(run, t) * self._sample.count(run.recipe)
        return token_costs.of_grades(run, items, {item.key: (texts[item.key], usual) for item in items}, 0)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        requested, candidates = {item.key for item in items}, read_candidates(run, t)
        compare = _grading(run) if preference_of(run.recipe).kind == "gold" else _scoring(run)
        for draw in read_draws(run, t):
            if draw.draw_id in requested:
                began = time.monotonic()
                table, tokens = compare(draw, candidates[draw.draw_id])
                sink.write(WinRates(draw.draw_id, table, tokens, time.monotonic() - began))


Compare = Callable[[Draw, Sequence[Candidate]], tuple[Probabilities, int]]


def _texts_read(recipe: Recipe, n: int) -> int:
    """Number of texts that the preference model reads for a prompt with `n` distinct answers."""
    return n if preference_of(recipe).kind == "reward" else n * (n - 1)


def _grading(run: Run) -> Compare:
    """Compares by the task's own grader."""
    gold, task, noise = read_gold(run), task_of(run), preference_of(run.recipe).noise
    metric = task.metrics[0].name

    def compare(draw: Draw, candidates: Sequence[Candidate]) -> tuple[Probabilities, int]:
        item = gold[draw.prompt_id]
        grades = [
            task.grade(item, row.answer).get(metric) if row.answer.strip() else None for row in candidates
        ]
        return by_grades(grades, noise), 0

    return compare


def _scoring(run: Run) -> Compare:
    """Compares by a preference model, on the engine's device; an engine on the GPU is closed first."""
    recipe = run.recipe
    close_engine_on_gpu()
    device = resolve_device(recipe.engine.device)
    scorer = PreferenceScorer(
        texts_of(recipe),
        resolve_dtype(recipe.engine.dtype, device),
        device,
        recipe.pool.trust_remote_code,
    )

    def compare(draw: Draw, candidates: Sequence[Candidate]) -> tuple[Probabilities, int]:
        answers = list(dict.fromkeys(text for row in candidates if (text := row.answer.strip())))
        preferred = scorer.preferred(draw.messages, answers)
        places = [answers.index(text) if (text := row.answer.strip()) else None for row in candidates]
        return spread(preferred, places), preferred.tokens

    return compare


def check_readable(recipe: Recipe, prompts: Sequence[Sequence[Message]]) -> None:
    """Raises SpartaError if the preference model of `recipe` is unusable, or cannot read more than the share judging.max_missing of these prompts."""
    texts, limit = texts_of(recipe), recipe.judging.max_missing
    read = [
        texts.rewarded(messages, "") if texts.kind == "reward" else texts.ranked(messages, "", "")
        for messages in prompts
    ]
    unread = [(messages, text.problem) for messages, text in zip(prompts, read, strict=True) if text.problem]
    if len(unread) > limit * len(prompts):
        [(messages, problem), *_] = unread
        raise SpartaError(
            f"baseline.preference.model: {texts.folder} cannot read {len(unread)} of the first {len(prompts)} instructions ({problem}: "
            f"{question_text(messages)[:80]!r}): name a model that reads this language and this length"
        )
