"""Finished iterations replayed from their votes under other rules, and labelled by judge-aware Bradley-Terry.

Plans, responses and votes stay those of the run: other rules would have matched other opponents, and trained other models. So a replay tells what
the rules make of the same votes, and not what another run would have been.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.judge_aware import Strengths, labels, preferences_in, strengths
from analysis.truth import require_combats, right_responses
from sparta import rng
from sparta.arena.preferences import label
from sparta.arena.replay import Replay
from sparta.arena.reputation import Standing, initial_standing
from sparta.arena.reweighting import reweight
from sparta.arena.rules import filled_elsewhere
from sparta.errors import SpartaError
from sparta.evaluation.across_seeds import SeededDifference, difference_over_seeds
from sparta.phases.judged import JudgedIteration, judged_iteration
from sparta.recipes.load import adjust, validated
from sparta.recipes.schema import Recipe
from sparta.store import files, standings
from sparta.store.records import Result, response_key
from sparta.store.run import Run
from sparta.tasks.registry import task_named

RERATED = ("reputation", "reweighting", "preferences")
"""The sections of a recipe that a replay may change: they decide what votes mean, not which votes there are."""


@dataclass(frozen=True)
class Label:
    """What a rule makes of a combat. winner: a model, or None. reason: see `preferences.REASONS`."""

    winner: str | None
    reason: str


@dataclass(frozen=True)
class Rerated:
    """One iteration under one rule. labels: by combat, in plan order. standings: at the end of the iteration; empty for judge-aware labels."""

    t: int
    labels: dict[str, Label]
    standings: dict[str, Standing]


@dataclass(frozen=True)
class Difference:
    """A combat with another label. right: the model whose response is the only correct one; None without gold, or where that is none or both."""

    t: int
    combat_id: str
    models: tuple[str, str]
    run: Label
    other: Label
    right: str | None


def other_rules(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """`recipe` with `settings` ("reputation.kappa=0.5") applied to its rules.

    reputation.preset=NAME sets all rules to that preset, before the other settings. Raises SpartaError for a key that does not belong to the rules, or
    would need votes that were never asked for.
    """
    presets = [setting.partition("=")[2] for setting in settings if _key(setting) == "reputation.preset"]
    for setting in settings:
        if _key(setting) == "judging.equal":
            if setting.partition("=")[2] == recipe.judging.equal or setting == "judging.equal=skip":
                continue
            raise SpartaError(
                f"{setting} needs votes on equal and empty answers, which this run never asked for: leave it out"
            )
        if _key(setting).split(".")[0] not in RERATED:
            raise SpartaError(
                f"{setting} would change which combats, responses or votes there are, and a replay has those of the run: set keys of "
                f"{', '.join(RERATED)} only, or start a run with it"
            )
    if presets:
        preset = {"preset": presets[-1]}
        elsewhere = filled_elsewhere(preset).get("reweighting", {})
        tree = {**recipe.model_dump(mode="json"), "reputation": preset, "reweighting": elsewhere}
        recipe = validated(Recipe, tree, f"recipe {recipe.name}")
    return adjust(recipe, [setting for setting in settings if _key(setting) != "reputation.preset"])


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def first_replayed(run: Run) -> int:
    """The first iteration that a replay makes again. What a fork with other rules inherited was made under the rules of its parent."""
    own = run.info.genesis == run.info.recipe_hash
    return 1 if own else run.info.inherited + 1


def judged_iterations(run: Run, rules: Recipe) -> Iterator[tuple[int, JudgedIteration]]:
    """The committed iterations of `run` that can be replayed, as judged under `rules`. Raises SpartaError where there is none."""
    replayed = [t for t in run.state.committed() if t >= first_replayed(run)]
    if not replayed:
        raise SpartaError(
            f"the run in {run.state.root} has no committed iteration to replay: let it finish one"
        )
    for t in replayed:
        require_combats(run, t)
        yield t, judged_iteration(run, t, rules.judging)


def rerated(run: Run, rules: Recipe) -> list[Rerated]:
    """All iterations of `run` replayed under `rules`, each from where the one before ended."""
    first = first_replayed(run)
    after = standings.at_end(run, first - 1)
    if after == standings.initial(run):
        after = {name: initial_standing(rules.reputation) for name in run.models}
    elif initial_standing(rules.reputation) != initial_standing(run.recipe.reputation):
        raise SpartaError(
            f"the run in {run.state.root} began with the standings of another one, so reputation.initial and reputation.deviation.initial change nothing: "
            "leave them out, or replay that run"
        )
    found = []
    for t, judged in judged_iterations(run, rules):
        stream = rng.stream(run.recipe.seed, t, "reweighting")
        before = reweight(after, t, rules.reweighting, stream)
        replayed = judged.replayed(before, rules.reputation, rules.preferences)
        after = replayed.standings
        found.append(Rerated(t, _labels_of(judged, replayed), after))
    return found


def _labels_of(judged: JudgedIteration, replayed: Replay) -> dict[str, Label]:
    return {
        combat.combat_id: Label(
            None if outcome.winner is None else combat.models[outcome.winner], outcome.reason
        )
        for combat, outcome in zip(judged.plan, replayed.outcomes, strict=True)
    }


def as_committed(run: Run) -> list[Rerated]:
    """The labels and standings that the run itself has, of the iterations that can be replayed."""
    found = []
    for t in run.state.committed():
        if t >= first_replayed(run):
            require_combats(run, t)
            rows = files.read_rows(run.iteration(t).combats, Result)
            made = {row.combat_id: Label(row.winner, row.reason) for row in rows}
            found.append(Rerated(t, made, standings.at_end(run, t)))
    return found


def judge_aware(run: Run) -> list[tuple[Rerated, Strengths]]:
    """All iterations labelled by judge-aware Bradley-Terry, each from its own votes, and the strengths of the models in them.

    The better response is the one on whose side the posterior mean of the combat's gap is; ties and unusable answers are those of the run's rules.
    """
    import numpy as np

    # The smallest margin is in score points, which a gap of Bradley-Terry is not.
    rules = run.recipe.preferences.model_copy(update={"min_margin": 0.0})
    found = []
    for t, judged in judged_iterations(run, run.recipe):
        preferred = preferences_in(judged.votes, judged.contestants)
        fitted, voted, made = labels(preferred), ~np.isnan(preferred).all(axis=1), {}
        for number, combat in enumerate(judged.plan):
            gap = float(fitted.gaps[number])
            scores = (gap, 0.0) if voted[number] else None
            winner, reason = label(scores, judged.unusable[number], rules)
            made[combat.combat_id] = Label(None if winner is None else combat.models[winner], reason)
        found.append((Rerated(t, made, {}), strengths(preferred, judged.contestants)))
    return found


def only_right(run: Run, t: int) -> dict[str, str]:
    """The combats of iteration t with exactly one correct response: by combat, the model that gave it. Raises SpartaError without gold answers."""
    right = right_responses(run, t)
    found = {}
    for combat in run.plan(t):
        correct = [model for model in combat.models if right[response_key(combat.combat_id, model)]]
        if len(correct) == 1:
            found[combat.combat_id] = correct[0]
    return found


def gold_of(run: Run, iterations: Sequence[int]) -> dict[str, str] | None:
    """`only_right` of these iterations together; None if the run's task has no gold answers that a program can check."""
    task = run.recipe.data.task
    if task is None or task_named(task, run.recipe.data).metrics[0].rubric is not None:
        return None
    return {combat: model for t in iterations for combat, model in only_right(run, t).items()}


def differences(
    run: Run, own: Sequence[Rerated], other: Sequence[Rerated], gold: Mapping[str, str] | None
) -> list[Difference]:
    """The combats that `other` labels in another way than `own`: another winner, or a pair in only one of them."""
    found = []
    for ours, theirs in zip(own, other, strict=True):
        models = {combat.combat_id: combat.models for combat in run.plan(ours.t)}
        for combat_id, was in ours.labels.items():
            now = theirs.labels[combat_id]
            if was.winner != now.winner:
                right = (gold or {}).get(combat_id)
                found.append(Difference(ours.t, combat_id, models[combat_id], was, now, right))
    return found


def hits(gold: Mapping[str, str], made: Sequence[Rerated], seed: str = "") -> dict[str, float]:
    """1 where the only correct response won, 0 where it lost or made no pair, by seed and combat."""
    winners = {combat: found.winner for each in made for combat, found in each.labels.items()}
    return {f"{seed}/{combat}": float(winners[combat] == model) for combat, model in gold.items()}


def share_right(found: Sequence[Mapping[str, float]]) -> SeededDifference:
    """The share of `hits`, the mean over runs with other seeds, with its 95 % interval. Each run counts the same."""
    share = difference_over_seeds(found, [dict.fromkeys(each, 0.0) for each in found])
    return dataclasses.replace(share, low=max(0.0, share.low), high=min(1.0, share.high))
