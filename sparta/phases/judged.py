"""An iteration that was judged: its combats, responses and votes as read from the state, and their replay.

The merge writes what the replay gives; analysis replays the same votes under other rules. Nothing is written here.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparta.arena.preferences import Reason, unusable
from sparta.arena.replay import Replay, replay
from sparta.arena.reputation import Standing
from sparta.arena.rules import Preferences, Reputation
from sparta.errors import SpartaError
from sparta.phases.undecidable import answer_of, why_undecidable
from sparta.recipes.schema import Judging
from sparta.store.records import Combat, FinishReason, Response, Vote
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import JudgeStats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class JudgedResponse:
    """The fields of a response that the merge needs. token_ids: packed, 4 bytes each. answer: the text that was judged."""

    text: str
    answer: str
    token_ids: "array[int]"
    tokenizer: str
    new_tokens: int
    finish_reason: FinishReason
    thinking: str
    answered: bool


@dataclass(frozen=True)
class JudgedIteration:
    """What the replay of an iteration needs.

    models: the pool, [m] names. plan: [n] combats. contestants: [n], the combats as indices into `models`. responses: [n][2], in the order of the
    contestants. votes: [n, 2, m], score points, NaN where missing or not asked for. unusable: [n], see `preferences.unusable`. jury: by judge, its votes
    counted. votes_saved: votes that were not asked for, because the answers are equal or one is empty.
    """

    models: tuple[str, ...]
    plan: Sequence[Combat]
    contestants: Sequence[tuple[int, int]]
    responses: Sequence[Sequence[JudgedResponse]]
    votes: "NDArray[np.float64]"
    unusable: Sequence[Reason | None]
    jury: Mapping[str, JudgeStats]
    votes_saved: int

    def replayed(
        self, standings: Mapping[str, Standing], reputation: Reputation, preferences: Preferences
    ) -> Replay:
        """The iteration's labels and reputations under these rules. standings: at its start, after reweighting."""
        return replay(
            self.models,
            standings,
            self.contestants,
            self.votes,
            self.unusable,
            reputation=reputation,
            preferences=preferences,
        )


def judged_iteration(run: Run, t: int, judging: Judging | None = None) -> JudgedIteration:
    """Iteration t as judged.

    judging: whether combats with equal or empty answers count as judged; None: by the run's recipe. Votes on combats that do not count are ignored.
    Raises SpartaError if a response or a vote is missing, or not in the plan.
    """
    import numpy as np

    iteration, models = run.iteration(t), run.models
    plan = run.plan(t)
    number = {model: index for index, model in enumerate(models)}
    position = {combat.combat_id: index for index, combat in enumerate(plan)}
    responses = _responses(run, t, plan, position)
    rules = judging or run.recipe.judging
    judged = [why_undecidable([side.answer for side in sides], rules) is None for sides in responses]
    votes = np.full((len(plan), 2, len(models)), np.nan)
    jury = {model: JudgeStats() for model in models}
    received = 0
    for vote in iter_shards(iteration.votes, Vote):
        try:
            index = position[vote.combat_id]
            side, judge = plan[index].models.index(vote.contestant), number[vote.judge]
        except (KeyError, ValueError):
            raise _unplanned(iteration.votes, vote.key) from None
        if not judged[index]:
            # It was made for another response, or under another setting of judging.equal.
            continue
        received += 1
        if vote.score is not None:
            votes[index, side, judge] = vote.score
        readable = bool(responses[index][side].answer.strip())
        jury[vote.judge] = jury[vote.judge].counting(vote, readable)
    votes_per_combat = 2 * (len(models) - 2)
    expected = votes_per_combat * sum(judged)
    if received != expected:
        raise SpartaError(
            f"{iteration.votes} has {received} of {expected} votes: judging is not complete, launch the run again to continue it"
        )
    return JudgedIteration(
        models=models,
        plan=plan,
        contestants=[(number[combat.models[0]], number[combat.models[1]]) for combat in plan],
        responses=responses,
        votes=votes,
        unusable=[unusable(first.answer, second.answer) for first, second in responses],
        jury=jury,
        votes_saved=votes_per_combat * judged.count(False),
    )


def _responses(
    run: Run, t: int, plan: Sequence[Combat], position: Mapping[str, int]
) -> list[list[JudgedResponse]]:
    """[n][2] responses in plan order. Raises SpartaError if one is missing."""
    found: list[list[JudgedResponse | None]] = [[None, None] for _ in plan]
    for row in iter_shards(run.iteration(t).responses, Response):
        try:
            index = position[row.combat_id]
            side = plan[index].models.index(row.model)
        except (KeyError, ValueError):
            raise _unplanned(run.iteration(t).responses, row.key) from None
        found[index][side] = JudgedResponse(
            row.text,
            answer_of(row),
            array("i", row.token_ids),
            row.tokenizer,
            row.new_tokens,
            row.finish_reason,
            row.thinking,
            row.answered,
        )
    complete = []
    for combat, sides in zip(plan, found, strict=True):
        present = [side for side in sides if side is not None]
        if len(present) != 2:
            raise SpartaError(
                f"{run.iteration(t).responses} lacks a response of combat {combat.combat_id}: generation is not complete, "
                "launch the run again to continue it"
            )
        complete.append(present)
    return complete


def _unplanned(folder: Path, key: str) -> SpartaError:
    return SpartaError(
        f"{folder} has a row {key} that is not in the plan: delete that row's line and launch the run again"
    )
