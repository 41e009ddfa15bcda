"""Undecidable combats: the two answers are equal, or one of them is empty or missing for good.

With `judging.equal: skip` they get no votes, so an iteration's votes are a function of its plan and responses. As long as responses are
missing, a combat counts as decidable: votes may turn out to be unnecessary, but none are added.
"""

from collections.abc import Mapping, Sequence

from sparta.arena.preferences import Reason, unusable
from sparta.recipes.schema import Judging
from sparta.store.records import Response
from sparta.store.run import Run
from sparta.store.shards import iter_shards


def answer_of(response: Response) -> str:
    """The text that is judged and compared; "" if there is no answer."""
    return "" if response.finish_reason == "prompt_too_long" else response.text


def why_undecidable(answers: Sequence[str], judging: Judging) -> Reason | None:
    """Why a combat with these answers gets no votes; None if it gets votes, or may still.

    answers: the one or two that exist; an empty one decides. Always None with `judging.equal: judge`.
    """
    if judging.equal == "judge":
        return None
    if len(answers) == 2:
        return unusable(*answers)
    return None if all(answer.strip() for answer in answers) else "empty"


def undecidable(run: Run, t: int) -> Mapping[str, Reason]:
    """Why combats of iteration t get no votes, by id, judging by the responses that exist."""
    judging = run.recipe.judging
    if judging.equal == "judge":
        return {}
    answers: dict[str, list[str]] = {}
    for response in iter_shards(run.iteration(t).responses, Response):
        answers.setdefault(response.combat_id, []).append(answer_of(response))
    return {
        combat_id: reason
        for combat_id, found in answers.items()
        if (reason := why_undecidable(found, judging)) is not None
    }
