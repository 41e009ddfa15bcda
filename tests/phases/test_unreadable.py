"""The error for an iteration of which too much could not be read: what it shows, and what it proposes."""

import re
from pathlib import Path

import pytest
from support.scripted_run import begin

from sparta.errors import SpartaError
from sparta.phases.unreadable import refuse_unreadable
from sparta.store.stats import JudgeStats


def test_a_launch_with_the_share_that_is_proposed_is_not_refused_again(tmp_path: Path) -> None:
    run = begin(tmp_path, judging={"max_missing": 0.0})
    for missing in range(1, 300):
        counts = JudgeStats(votes=299, missing=missing)
        with pytest.raises(SpartaError) as error:
            refuse_unreadable(run, 1, "votes", counts, [])
        proposed = re.search(r"--set judging.max_missing=(\d\.\d\d);", str(error.value))
        assert proposed is not None
        assert counts.share_missing <= float(proposed[1]) <= min(1.0, counts.share_missing + 0.02)


def test_it_shows_three_replies_and_says_why_others_are_empty(tmp_path: Path) -> None:
    run = begin(tmp_path)
    counts = JudgeStats(votes=10, missing=9, unanswered=2)
    with pytest.raises(SpartaError) as error:
        refuse_unreadable(
            run,
            1,
            "votes of x could not be read",
            counts,
            ["", "a", "b", "c", "d"],
            no_room=4,
            more="; or not",
        )
    said = str(error.value)
    assert "9 of 10 votes of x could not be read (90%, judging.max_missing is 50%)" in said
    assert "for example, 'a', 'b', 'c';" in said and "'d'" not in said
    assert "the prompts of 4 of them did not fit engine.context_length" in said
    assert "in 2 of them its thinking never ended within chat.thinking_tokens" in said
    assert said.endswith("--fork DIR --set judging.KEY=VALUE; or not")
    refuse_unreadable(run, 1, "votes of x could not be read", JudgeStats(votes=10, missing=5), [])
    refuse_unreadable(run, 1, "votes of x could not be read", JudgeStats(), [])
