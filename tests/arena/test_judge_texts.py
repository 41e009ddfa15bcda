"""Reading what judges write: never another score, and the score where it can be told."""

import time

import pytest
from support.cases import cases
from support.judge_texts import CUT, EVERY

from sparta.arena.votes import after_thinking, parse_score


@pytest.mark.parametrize("row", cases("judge_texts.jsonl", "what"))
def test_the_rows_beside_the_repository_are_read_right(row: dict) -> None:
    assert parse_score(row["text"]) in row["accepted"]


@pytest.mark.parametrize(("text", "accepted"), EVERY)
def test_a_text_is_read_as_a_careful_reader_would(text: str, accepted: tuple[float | None, ...]) -> None:
    assert parse_score(text) in accepted


def test_of_what_can_be_read_most_is_read() -> None:
    readable = [text for text, accepted in EVERY if accepted != (None,)]
    read = [text for text in readable if parse_score(text) is not None]
    assert len(read) > 0.75 * len(readable)


@pytest.mark.parametrize(("text", "score"), CUT)
def test_a_reply_that_was_cut_counts_only_if_its_score_is_complete_beyond_doubt(
    text: str, score: float | None
) -> None:
    assert parse_score(text, cut=True) == score


@pytest.mark.parametrize(("text", "accepted"), EVERY)
def test_a_cut_never_makes_another_score(text: str, accepted: tuple[float | None, ...]) -> None:
    assert parse_score(text, cut=True) in {parse_score(text), None}


WHOLE = [
    '{"reason": "right", "score": 8}',
    "{'score': 8}",
    "The response is right.\n\nScore: 8/10\n\nIt has no errors.",
    "I rate it 8/10. It has no errors.",
    "Accuracy: 9/10\nStyle: 3/10\nOverall: 8/10\n",
    "<think>3/10?</think>\n**Score: 8**\n\nDone.",
]


@pytest.mark.parametrize("text", WHOLE)
def test_wherever_a_reply_is_cut_its_score_is_read_whole_or_is_missing(text: str) -> None:
    assert parse_score(text, cut=True) == 8
    assert {parse_score(text[:end], cut=True) for end in range(len(text))} <= {8, None}


SEVERAL = ['{{"score": {}}}', "Score: {}\n", "**Final score: {}/10**\n"]


@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize(
    "said",
    [
        'The response says "{}" of itself. ',
        "I would not write {} here. ",
        "> {}\n\n",
        "~~{}~~ ",
        "<!-- {} -->",
        "<think>{}</think>",
        "The response ends with:\n```\n{}\n```\n\n",
    ],
)
def test_what_is_no_verdict_changes_none(form: str, said: str) -> None:
    aside = said.format(form.format(10).strip())
    assert parse_score(aside) is None
    assert parse_score(f"{aside}\n{form.format(3)}") == 3
    assert parse_score(f"{form.format(3)}\n\n{aside}\n") in (3, None)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        '{"a":',
        '{"a": 1, ',
        '{"a": {"b": 1}, !',
        '{"score": 8}\n',
        "Score: 8\n",
        "score of ",
        "score for the ",
        "1/10 ",
        "7-",
        "~~a",
        "<!--",
        "<think>",
        "</think>",
        "> ",
        "not ",
        "the response says ",
        "wait, ",
        "# a\n",
        "**a**\n",
        "question: ",
        '"',
        "\\boxed{",
        "\u200b1",
    ],
)
def test_reading_takes_time_in_proportion_to_the_length(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.process_time()
        parse_score(text)
        return time.process_time() - start

    once = min(seconds(10_000) for _ in range(3))
    # Ten times the length: quadratic time would be a hundred times as much.
    assert seconds(100_000) < 40 * max(once, 0.01)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("8", "8"),
        ("<think>3</think>8", "8"),
        ("3</think>8", "8"),
        ("<think>3", None),
        ("<think>3</think>8<think>9", None),
        ("<THINK >3</ think>8", "8"),
        ("<|channel|>analysis<|message|>3<|channel|>final<|message|>8", "8"),
        ("<|channel|>analysis<|message|>3", None),
        ("I think 8", "I think 8"),
    ],
)
def test_what_follows_thinking_is_what_is_said(text: str, spoken: str | None) -> None:
    assert after_thinking(text) == spoken
