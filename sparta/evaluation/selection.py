"""Chooses checkpoints by their validation scores: the pools to choose from, and the best of each. Uses no test scores."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from sparta.errors import SpartaError
from sparta.evaluation.scores import CheckpointScores

INITIAL = "best initial model"
LAST = "best of the last pool"
ALL = "best of all checkpoints"


class Mean(msgspec.Struct, frozen=True):
    """The score of one checkpoint. value: mean over the graded items; None if there are none. unanswered: how many of the ungraded."""

    value: float | None
    graded: int
    ungraded: int
    unanswered: int = 0

    @property
    def eligible(self) -> bool:
        """Whether the checkpoint may be chosen: at most half of its answers are ungraded."""
        return self.graded > 0 and self.ungraded <= self.graded


def mean_of(scored: CheckpointScores) -> Mean:
    """The mean over graded items, and the counts of the others."""
    values = scored.values.values()
    return Mean(fmean(values) if values else None, len(values), scored.ungraded, scored.unanswered)


def pools(iterations: Sequence[int], every: bool) -> dict[str, tuple[int, ...]]:
    """The choices to make, each with the iterations to choose among: the first, the last and, with `every`, all of `iterations`."""
    found = {INITIAL: tuple(iterations[:1]), LAST: tuple(iterations[-1:])}
    return {**found, ALL: tuple(iterations)} if every else found


def best(task: str, what: str, means: Mapping[str, Mean]) -> tuple[str, float]:
    """The checkpoint with the highest mean (the first, if tied), and that mean.

    Raises SpartaError if none is eligible: more than half of every checkpoint's validation answers on `task` are ungraded.
    """
    eligible = {name: mean.value for name, mean in means.items() if mean.eligible and mean.value is not None}
    if not eligible:
        counts = ", ".join(
            f"{mean.graded} of {mean.graded + mean.ungraded} of {name}" for name, mean in means.items()
        )
        raise SpartaError(
            f"the {what} on {task} cannot be determined: more than half of the validation answers of each checkpoint are ungraded (graded: {counts}); "
            "look at the answers and the judge's replies below evals/"
        )
    name = max(eligible, key=lambda name: eligible[name])
    return name, eligible[name]
