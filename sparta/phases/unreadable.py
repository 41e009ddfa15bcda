"""Stops a run in which too much of what a model said about answers could not be read: the little that could would decide what is learned."""

import math
from collections.abc import Iterable
from itertools import islice

from sparta.errors import SpartaError
from sparta.names import quoted
from sparta.store.run import Run
from sparta.store.stats import JudgeStats

SHOWN = 3


def excerpt(raw: str, thinking: str) -> str:
    """What is shown of a reply that could not be read: its beginning, or the end of thinking that never ended."""
    return raw[:120] or thinking[-120:]


def refuse_unreadable(
    run: Run, t: int, what: str, counts: JudgeStats, texts: Iterable[str], no_room: int = 0, more: str = ""
) -> None:
    """Raises SpartaError if more than the share judging.max_missing of the replies in `counts` is missing.

    what: subject and verb, such as "votes of judge adder could not be read". texts: excerpts of these. no_room: how many of them have a prompt that
    did not fit the context. more: a further remedy.
    """
    recipe = run.recipe
    if counts.share_missing <= recipe.judging.max_missing:
        return
    shown = [repr(text) for text in islice(filter(None, texts), SHOWN)]
    wrote = f"it wrote, for example, {', '.join(shown)}" if shown else "it wrote nothing"
    if no_room:
        wrote += f"; the prompts of {no_room} of them did not fit engine.context_length, {recipe.engine.context_length}"
    if counts.unanswered:
        wrote += (
            f"; in {counts.unanswered} of them its thinking never ended within chat.thinking_tokens, {recipe.chat.thinking_tokens}, and "
            f"judging.max_new_tokens, {recipe.judging.max_new_tokens}"
        )
    remedy = f"the judging: {fork(run, t)} --set judging.KEY=VALUE{more}"
    raise too_many_missing(run, t, what, counts, wrote, remedy)


def too_many_missing(run: Run, t: int, what: str, counts: JudgeStats, why: str, remedy: str) -> SpartaError:
    """The error for an iteration of which more than judging.max_missing is missing. what: the subject and verb. remedy: what to change, and how."""
    share = counts.share_missing
    # Rounded up: a share rounded down would be refused again.
    accepted = math.ceil(100 * share) / 100
    return SpartaError(
        f"iteration {t}: {counts.missing} of {counts.votes} {what} ({share:.0%}, judging.max_missing is {run.recipe.judging.max_missing:.0%}); {why}. "
        f"To continue anyway: --set judging.max_missing={accepted:.2f}; to change {remedy}"
    )


def fork(run: Run, t: int) -> str:
    """The options of a launch that makes iteration t anew, in a run of its own."""
    return f"{quoted('--resume', run.iteration(t - 1).root)} --fork DIR"
