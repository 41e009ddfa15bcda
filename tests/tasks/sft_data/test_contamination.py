"""Rows that models are also scored on are found, whatever stands around the question."""

from pathlib import Path

import pytest

from sparta.chat.template import Message
from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.gsm8k import GSM8K, LEAD
from sparta.tasks.benchmarks.medqa import MEDQA
from sparta.tasks.chats import Chat
from sparta.tasks.sft_data.contamination import HeldOut, held_out

LONG = "Ada has 12 apples and gives each of her 3 friends 2 of them, how many apples has Ada then?"
SHORT = "What is the capital of Ruritania?"
QUESTIONS = (LONG, SHORT, "Bob walks 3 miles a day. How far does he walk in a week?")


def items(split: str, *questions: str) -> list[Item]:
    return [
        Item(
            f"{split}-{number}",
            (Message("user", LEAD + question),),
            answer="1",
            reference="1",
        )
        for number, question in enumerate(questions)
    ]


def chat(*asked: str) -> Chat:
    turns = (turn for text in asked for turn in (Message("user", text), Message("assistant", "An answer.")))
    return Chat("x", tuple(turns))


@pytest.fixture
def scored() -> HeldOut:
    found = HeldOut()
    found.add("gsm8k", [items("test", *QUESTIONS)])
    return found


@pytest.mark.parametrize(
    "asked",
    [
        (LONG,),
        (LONG.upper().replace(",", " -"),),
        (f"Q: {LONG}\nLet's think step by step.\nA:",),
        ("Hello!", f"Now this one: {LONG}"),
        (LONG.removesuffix(", how many apples has Ada then?"),),
        (SHORT,),
        ("what is the capital of ruritania",),
        (GSM8K.plain(items("test", LONG)[0])[0].content,),
    ],
)
def test_a_question_of_an_evaluation_is_found(asked: tuple[str, ...], scored: HeldOut) -> None:
    assert scored.asks(chat(*asked))


@pytest.mark.parametrize(
    "asked",
    [
        "Eve has 12 apples and eats one of them every day, how many apples has Eve after a week?",
        "What is the capital of Borduria?",
        # The task's form is not its question.
        GSM8K.plain(items("test", "What is 2 + 2?")[0])[0].content,
        "Hi",
    ],
)
def test_another_question_is_not(asked: str, scored: HeldOut) -> None:
    assert not scored.asks(chat(asked))


def test_of_one_question_alone_no_word_is_taken_for_form() -> None:
    found = HeldOut()
    found.add("gsm8k", [items("test", LONG)])
    assert found.asks(chat(LONG)) and not found.asks(chat(SHORT))


def test_what_only_the_assistant_says_does_not_count(scored: HeldOut) -> None:
    assert not scored.asks(Chat("x", (Message("user", "Set me a task."), Message("assistant", LONG))))


def test_validation_and_test_of_what_is_prepared_are_held_out_and_train_is_not(tmp_path: Path) -> None:
    source = prepared.Provenance("gsm8k", "local", "MIT", files={}, dropped={}, notes=(), missing={})
    splits = {
        "train": items("train", LONG, "Train one?"),
        "validation": items("validation", SHORT, "Another one?"),
        "test": items("test", QUESTIONS[2], "A third?"),
    }
    prepared.write(tmp_path, GSM8K, splits, source)  # type: ignore[arg-type]
    found = held_out([MEDQA, GSM8K], Data(task="gsm8k", folder=str(tmp_path)))
    assert found.tasks == ["gsm8k"]
    assert [found.asks(chat(question)) for question in QUESTIONS] == [False, True, True]
