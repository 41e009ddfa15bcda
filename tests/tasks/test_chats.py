"""Chats for supervised training: which turns of a published row are kept, and which are dropped and counted."""

import pytest

from sparta.chat.template import Message
from sparta.tasks.chats import Chat, collected

U, A, S = "user", "assistant", "system"


def kept(*rows: list[tuple[str, str | None]]) -> tuple[list[list[tuple[str, str]]], dict[str, int]]:
    """Role and content of what is kept, and what is dropped."""
    chats = collected((f"row-{number}", turns) for number, turns in enumerate(rows))
    return [[(turn.role, turn.content) for turn in chat.messages] for chat in chats.rows], dict(chats.dropped)


def test_a_chat_of_several_turns_is_kept_as_it_is() -> None:
    turns = [(S, "Be brief."), (U, "Hello"), (A, "Hi\n"), (U, " And?"), (A, "Bye")]
    assert kept(turns) == ([turns], {})  # type: ignore[arg-type]


def test_speakers_have_many_names_and_three_roles() -> None:
    [chat] = collected([("x", [("human", "a"), ("gpt", "b"), ("prompter", "c"), ("chatgpt", "d")])]).rows
    assert chat == Chat("x", (Message(U, "a"), Message(A, "b"), Message(U, "c"), Message(A, "d")))  # type: ignore[arg-type]


def test_somebody_else_is_refused() -> None:
    with pytest.raises(ValueError, match="a turn is of 'tool', none of system, user, human"):
        collected([("x", [(U, "a"), ("tool", "b")])])


def test_a_chat_that_ends_with_a_user_turn_loses_it_or_goes() -> None:
    rows, dropped = kept([(U, "a"), (A, "b"), (U, "c")], [(U, "alone")], [(S, "s")], [])
    assert rows == [[(U, "a"), (A, "b")]]
    assert dropped == {"last turns that are the user's": 1, "rows without an answer": 3}


@pytest.mark.parametrize("nothing", ["", " \n", None])
def test_a_chat_is_cut_before_an_empty_turn(nothing: str | None) -> None:
    rows, dropped = kept(
        [(U, "a"), (A, "b"), (U, "c"), (A, nothing), (U, "d"), (A, "e")],
        [(U, "x"), (A, nothing)],
        [(S, nothing), (U, "y"), (A, "z")],
    )
    assert rows == [[(U, "a"), (A, "b")], [(U, "y"), (A, "z")]]
    assert dropped == {
        "chats cut before an empty turn": 1,
        "last turns that are the user's": 1,
        "rows without an answer": 1,
    }


def test_turns_of_one_role_in_a_row_are_joined_and_said() -> None:
    chats = collected([("x", [(U, "a"), (U, "b"), (A, "c"), (A, "d")])], ["a note"])
    assert [turn.content for turn in chats.rows[0].messages] == ["a\n\nb", "c\n\nd"]
    assert chats.notes == (
        "a note",
        "2 turns joined to the one before, which is of the same role, by a blank line",
    )


def test_an_answer_before_any_question_is_taken_out() -> None:
    rows, dropped = kept([(A, "hello"), (U, "a"), (A, "b")], [(S, "s"), (A, "hello"), (U, "c"), (A, "d")])
    assert rows == [[(U, "a"), (A, "b")], [(S, "s"), (U, "c"), (A, "d")]]
    assert dropped == {"turns that answer before any question": 2}


def test_a_system_turn_in_the_middle_and_half_a_character_cost_the_row() -> None:
    rows, dropped = kept([(U, "a"), (S, "b"), (A, "c")], [(U, "a\ud83d"), (A, "c")], [(U, "a"), (A, "c")])
    assert rows == [[(U, "a"), (A, "c")]]
    assert dropped == {
        "rows with a system turn in their middle": 1,
        "rows with half a character (a lone surrogate), which no file can hold": 1,
    }


def test_a_row_word_for_word_like_an_earlier_one_is_left_out() -> None:
    rows, dropped = kept([(U, "a"), (A, "b")], [(U, "a"), (A, "b ")], [(U, "a"), (A, "b")])
    assert rows == [[(U, "a"), (A, "b")], [(U, "a"), (A, "b ")]]
    assert dropped == {"rows that are word for word an earlier one": 1}
