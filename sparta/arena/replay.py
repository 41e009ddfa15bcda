"""Replays the combats of one iteration in plan order, from its votes: labels, reputations, counts (inner loop of Algorithm 1).

Nothing is generated or judged here: the votes exist already, so the live reputations of Algorithm 1 cost no forward pass.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sparta.arena.aggregation import Verdict, aggregate
from sparta.arena.matchmaking import require_judges
from sparta.arena.preferences import REASONS, Reason, label
from sparta.arena.reputation import Standing, deviation_after, updated
from sparta.arena.rules import Preferences, Reputation
from sparta.errors import SpartaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 4096
"""Number of combats whose votes are converted to Python floats at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one combat.

    scores: s_i, s_j that decided the label (score points), None if no judge scored both responses. winner: 0 or 1, the contestant in the
    order of the plan, None if there is no pair. reason: see preferences.REASONS. jury: number of judges counted.
    before, after: (R_i, R_j) before and after the update.
    """

    scores: tuple[float, float] | None
    winner: Literal[0, 1] | None
    reason: Reason
    jury: int
    before: tuple[float, float]
    after: tuple[float, float]


@dataclass(frozen=True)
class Replay:
    """The result of replaying an iteration.

    outcomes: [n], in plan order. standings: at the end of the iteration, in the order of the models. counts: combats per reason (every
    reason has an entry), and "uniform_jury", the combats whose judges' weights did not sum to a positive number.
    """

    outcomes: list[Outcome]
    standings: dict[str, Standing]
    counts: dict[str, int]


def replay(
    models: Sequence[str],
    standings: Mapping[str, Standing],
    combats: Sequence[tuple[int, int]],
    votes: "NDArray[np.float64]",
    unusable: Sequence[Reason | None],
    *,
    reputation: Reputation,
    preferences: Preferences,
) -> Replay:
    """Replay an iteration: for each combat aggregate with the live reputations, label, update both contestants (Algorithm 1).

    models: the pool, m names. standings: one per model, with omega of this iteration already set (`reweighting.reweight`).
    combats: [n], indices into `models`, in plan order. votes: [n, 2, m], score points, NaN where missing; a contestant's own column is
    ignored. unusable: [n], see `preferences.unusable`. An unusable combat makes no pair; if it has votes, it still updates reputations,
    like a tie. A combat without votes (void or not judged) changes nothing, but counts in the n of kappa.

    Deterministic, and independent of the model names. Raises SpartaError when m < 3 or the standings name other models,
    ValueError when shapes differ or a combat is not between two models of the pool.
    """
    _check(models, standings, combats, votes, unusable)
    table = _Table([standings[name] for name in models], reputation)
    verdicts: list[Verdict | None] = []
    reputations: list[tuple[tuple[float, float], tuple[float, float]]] = []
    uniform_juries = 0
    for n, ((i, j), scores) in enumerate(
        zip(combats, _votes_of_judges(votes, combats), strict=True), start=1
    ):
        verdict = aggregate(scores, table.judging)
        before = table.reputations[i], table.reputations[j]
        if verdict is not None:
            uniform_juries += verdict.uniform
            table.settle(n, i, j, verdict.scores)
        verdicts.append(verdict)
        reputations.append((before, (table.reputations[i], table.reputations[j])))
    if reputation.labels == "final":
        verdicts = [aggregate(scores, table.reputations) for scores in _votes_of_judges(votes, combats)]
    outcomes = [
        _outcome(verdict, texts, before, after, preferences)
        for verdict, texts, (before, after) in zip(verdicts, unusable, reputations, strict=True)
    ]
    reasons = Counter(outcome.reason for outcome in outcomes)
    counts: dict[str, int] = {reason: reasons[reason] for reason in REASONS}
    counts["uniform_jury"] = uniform_juries
    return Replay(outcomes, dict(zip(models, table.standings(), strict=True)), counts)


class _Table:
    """The standings of the pool during a replay, by model index."""

    def __init__(self, standings: Sequence[Standing], rules: Reputation) -> None:
        self._rules = rules
        self._start = standings
        self.reputations = [standing.reputation for standing in standings]
        # With `omega: contestants`, omega does not affect the judges.
        self._omega = [standing.weight if rules.omega == "judges" else 1.0 for standing in standings]
        self._own = [standing.weight if rules.omega == "contestants" else 1.0 for standing in standings]
        self._deviations = [standing.deviation for standing in standings]
        window = rules.deviation.window
        self._changes = [
            deque(standing.changes if rules.deviation.keep_window else (), maxlen=window)
            for standing in standings
        ]
        self.judging = [omega * r for omega, r in zip(self._omega, self.reputations, strict=True)]
        """Every model's weight as a judge, [m]."""

    def settle(self, n: int, i: int, j: int, scores: tuple[float, float]) -> None:
        """Update contestants i and j after the n-th combat of the iteration. scores: s_i, s_j."""
        rules = self._rules
        if rules.frozen:
            return
        gap = self._own[i] * scores[0] - self._own[j] * scores[1]
        kappa = rules.kappa.at(n)
        r_i, r_j = self.reputations[i], self.reputations[j]
        sigma_i, sigma_j = self._deviations[i], self._deviations[j]
        new_i = updated(r_i, r_j, sigma_i, sigma_j, gap, kappa, rules)
        opponent_of_j = new_i if rules.update == "sequential" else r_i
        new_j = updated(r_j, opponent_of_j, sigma_j, sigma_i, -gap, kappa, rules)
        self._move(i, new_i)
        self._move(j, new_j)

    def standings(self) -> list[Standing]:
        """The standings at the end of the iteration, [m], in pool order."""
        rules = self._rules
        if rules.frozen:
            return list(self._start)
        if rules.deviation.unit == "iteration":
            for k, start in enumerate(self._start):
                self._record(k, self.reputations[k] - start.reputation)
        return [
            Standing(r, deviation, tuple(changes), start.weight, start.reweighted)
            for r, deviation, changes, start in zip(
                self.reputations, self._deviations, self._changes, self._start, strict=True
            )
        ]

    def _move(self, k: int, reputation: float) -> None:
        change = reputation - self.reputations[k]
        self.reputations[k] = reputation
        self.judging[k] = self._omega[k] * reputation
        if self._rules.deviation.unit == "combat":
            self._record(k, change)

    def _record(self, k: int, change: float) -> None:
        self._changes[k].append(change)
        self._deviations[k] = deviation_after(
            tuple(self._changes[k]), self._deviations[k], self._rules.deviation
        )


def _outcome(
    verdict: Verdict | None,
    texts: Reason | None,
    before: tuple[float, float],
    after: tuple[float, float],
    preferences: Preferences,
) -> Outcome:
    scores, jury = (verdict.scores, verdict.jury) if verdict else (None, 0)
    winner, reason = label(scores, texts, preferences)
    return Outcome(scores, winner, reason, jury, before, after)


def _votes_of_judges(
    votes: "NDArray[np.float64]", combats: Sequence[tuple[int, int]]
) -> Iterator[list[list[float]]]:
    """The votes of each combat, [2, m], with NaN in the contestants' own columns."""
    import numpy as np  # imported here because commands that only read a run's status import the arena too

    for start in range(0, len(combats), _BLOCK):
        contestants = np.asarray(combats[start : start + _BLOCK])
        block = np.array(votes[start : start + _BLOCK], dtype=np.float64)
        rows = np.arange(len(block))
        for side in (0, 1):
            block[rows, :, contestants[:, side]] = np.nan
        yield from block.tolist()


def _check(
    models: Sequence[str],
    standings: Mapping[str, Standing],
    combats: Sequence[tuple[int, int]],
    votes: "NDArray[np.float64]",
    unusable: Sequence[Reason | None],
) -> None:
    m, n = len(models), len(combats)
    require_judges(m)
    unmatched = set(standings) ^ set(models)
    if unmatched:
        names = ", ".join(sorted(unmatched))
        raise SpartaError(
            f"the standings and the pool do not name the same models ({names}); restore the standings of this run's iteration"
        )
    if len(standings) != m:
        raise ValueError(f"a model is named twice in the pool: {list(models)}")
    if votes.shape != (n, 2, m):
        raise ValueError(f"votes of shape {votes.shape} for {n} combats and {m} models, expected {(n, 2, m)}")
    if len(unusable) != n:
        raise ValueError(f"{len(unusable)} entries in `unusable` for {n} combats")
    for i, j in combats:
        if i == j or not 0 <= i < m or not 0 <= j < m:
            raise ValueError(f"a combat between models {i} and {j} of a pool of {m}")
