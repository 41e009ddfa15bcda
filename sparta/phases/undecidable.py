"""Combats in which there is nothing to judge: the two answers are equal, or one of them is empty or never came.

With `judging.equal: skip` no vote is asked for there, so that the votes of an iteration are a function of its plan and its responses. While
responses are still to come, a combat counts as one to judge: votes can turn out to be unneeded, never more of them needed.
"""

from collections.abc import Mapping, Sequence

from sparta.arena.preferences import Reason, unusable
from sparta.recipes.schema import Judging
from sparta.store.records import Response
from sparta.store.run import Run
from sparta.store.shards import iter_shards


def answer_of(response: Response) -> str:
    """What judges see of a response, and what is compared; "" where there is no answer."""
    return "" if response.finish_reason == "prompt_too_long" else response.text


def why_undecidable(answers: Sequence[str], judging: Judging) -> Reason | None:
    """Why no vote is asked for where these are the answers of a combat that have come so far; None where votes are, or may be.

    answers: one or two; one that is empty settles it. None wherever the recipe has equal responses judged.
    """
    if judging.equal == "judge":
        return None
    if len(answers) == 2:
        return unusable(*answers)
    return None if all(answer.strip() for answer in answers) else "empty"


def undecidable(run: Run, t: int) -> Mapping[str, Reason]:
    """The combats of iteration t that no vote is asked for, as far as their responses have come, by id."""
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
