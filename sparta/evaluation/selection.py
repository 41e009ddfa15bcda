"""Choosing checkpoints by their validation scores: which pools they are chosen from, and the best of each. Nothing of a test split is in view."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from sparta.errors import SpartaError
from sparta.evaluation.scores import CheckpointScores

INITIAL = "best initial model"
LAST = "best of the last pool"
ALL = "best of all checkpoints"


class Mean(msgspec.Struct, frozen=True):
    """The score of one checkpoint. value: mean over the items that were graded; None where none was. unanswered: of the ungraded."""

    value: float | None
    graded: int
    ungraded: int
    unanswered: int = 0

    @property
    def eligible(self) -> bool:
        """Whether enough is known of the checkpoint to choose it: no more than half of its answers are ungraded."""
        return self.graded > 0 and self.ungraded <= self.graded


def mean_of(scored: CheckpointScores) -> Mean:
    """The mean of what was graded; what was not is counted."""
    values = scored.values.values()
    return Mean(fmean(values) if values else None, len(values), scored.ungraded, scored.unanswered)


def pools(iterations: Sequence[int], every: bool) -> dict[str, tuple[int, ...]]:
    """What is chosen, and among the models of which iterations: the first and the last of `iterations`, and (`every`) all of them."""
    found = {INITIAL: tuple(iterations[:1]), LAST: tuple(iterations[-1:])}
    return {**found, ALL: tuple(iterations)} if every else found


def best(task: str, what: str, means: Mapping[str, Mean]) -> tuple[str, float]:
    """The checkpoint with the highest mean, of equals the first, and that mean.

    Raises SpartaError where none may be chosen, for of each more than half of the answers to the validation split of `task` are ungraded.
    """
    eligible = {name: mean.value for name, mean in means.items() if mean.eligible and mean.value is not None}
    if not eligible:
        counts = ", ".join(
            f"{mean.graded} of {mean.graded + mean.ungraded} of {name}" for name, mean in means.items()
        )
        raise SpartaError(
            f"the {what} on {task} cannot be told: more than half of the validation answers of each checkpoint are ungraded (graded: {counts}); "
            "see what they and the judge wrote, below evals/"
        )
    name = max(eligible, key=lambda name: eligible[name])
    return name, eligible[name]
