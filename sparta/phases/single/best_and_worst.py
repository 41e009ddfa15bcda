"""Which two candidates of a prompt make a pair: the best and the worst by their scores. Pure: no files."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparta.arena.preferences import Reason
from sparta.arena.rules import Preferences

Scores = Sequence[float | None]
"""Scores of candidates, in candidate order; None for a candidate without one."""


@dataclass(frozen=True)
class Choice:
    """Numbers of the two candidates; None if there is no pair. reason: as in a combat (sparta.arena.preferences.REASONS)."""

    chosen: int | None
    rejected: int | None
    reason: Reason


def best_and_worst(answers: Sequence[str], scores: Scores, rules: Preferences) -> Choice:
    """The candidate with the highest score against the one with the lowest; the first of several with the same score.

    answers: [n], "" for none. No pair is made if fewer than two candidates have an answer ("empty"), all answers are equal after stripping
    ("equal"), fewer than two different answers have a score ("void"), or the scores differ by no more than a tie ("tie") or less than the margin
    of `rules` ("margin").
    """
    if reason := undecided(answers):
        return Choice(None, None, reason)
    scored = [
        (score, number)
        for number, (answer, score) in enumerate(zip(answers, scores, strict=True))
        if answer.strip() and score is not None
    ]
    if len({answers[number].strip() for _, number in scored}) < 2:
        return Choice(None, None, "void")
    best = max(scored, key=lambda entry: (entry[0], -entry[1]))
    worst = min(scored)
    if best[0] - worst[0] <= rules.tie_tolerance:
        return Choice(None, None, "tie")
    if best[0] - worst[0] < rules.min_margin:
        return Choice(None, None, "margin")
    if answers[best[1]].strip() == answers[worst[1]].strip():
        # With judging.equal: judge, equal texts may have different scores.
        return Choice(None, None, "equal")
    return Choice(best[1], worst[1], "pair")


def with_length_control(
    answers: Sequence[str], scores: Scores, lengths: Sequence[int], rho: float, rules: Preferences
) -> Choice:
    """Like `best_and_worst`, but chosen is the shortest candidate near the best score, and rejected the longest near the worst.

    Near: within the share `rho` (below 1/2) of the range of scores. lengths: [n], in tokens.
    """
    choice = best_and_worst(answers, scores, rules)
    if choice.chosen is None or choice.rejected is None:
        return choice
    scored = {
        number: score
        for number, (answer, score) in enumerate(zip(answers, scores, strict=True))
        if answer.strip() and score is not None
    }
    lowest, highest = min(scored.values()), max(scored.values())
    margin = rho * (highest - lowest)
    good = [number for number, score in scored.items() if score >= highest - margin]
    bad = [number for number, score in scored.items() if score <= lowest + margin]
    return Choice(
        min(good, key=lambda number: (lengths[number], -scored[number], number)),
        min(bad, key=lambda number: (-lengths[number], scored[number], number)),
        "pair",
    )


def undecided(answers: Sequence[str]) -> Reason | None:
    """Why these candidates cannot make a pair, whatever their scores; None if they can."""
    given = [answer.strip() for answer in answers if answer.strip()]
    if len(given) < 2:
        return "empty"
    return "equal" if len(set(given)) == 1 else None
