"""`Question: ... Answer:` stands around a question where the chat template is left out, and nowhere else."""

from pathlib import Path

import pytest

from sparta.chat.template import Message
from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.benchmarks import alpaca, com2, gsm8k, mathematics, medqa, truthfulqa
from sparta.tasks.dataset import Dataset
from sparta.tasks.registry import task_named

ASKED = {
    "alpaca": ("Sing.\n\nInput: La", "Instruction: Sing.\n\nInput: La\n\nResponse:"),
    "com2": ("Context: It rained.\nQuestion: Why?", "Context: It rained.\nQuestion: Why?\nAnswer:"),
    "gsm8k": (f"{gsm8k.LEAD}How many?", f"{gsm8k.LEAD}Question: How many?\nAnswer:"),
    "math_easy": (f"{mathematics.LEAD}1 + 1?", f"{mathematics.LEAD}Problem: 1 + 1?\nSolution:"),
    "medqa": (f"{medqa.LEAD}What?\nA. tea", f"{medqa.LEAD}Question: What?\nA. tea\nAnswer:"),
    "truthfulqa": (f"{truthfulqa.LEAD}Who?", f"{truthfulqa.LEAD}Question: Who?\nAnswer:"),
    "kcross": ("Fill in the blanks.", "Fill in the blanks."),
}
"""By data set, the turn of an item, and what bare text asks in its place: what every version has asked."""


@pytest.mark.parametrize("name", ASKED)
def test_bare_text_is_asked_with_its_scaffolding_and_a_chat_template_without(name: str) -> None:
    task = task_named(name, Data(task=name))
    assert isinstance(task, Dataset)
    asked, plain = ((Message("user", text),) for text in ASKED[name])
    assert task.plain(Item("a", asked)) == plain
    assert task.plain(Item("a", plain)) == plain, "items that an earlier version wrote down have it already"
    assert task.scaffold.removed(plain) == asked
    assert task.scaffold.removed(asked) == asked


def test_only_the_last_turn_is_a_question() -> None:
    before = Message("user", "Hi"), Message("assistant", "Hello")
    for task in (alpaca.ALPACA, com2.COM2):
        turns = (*before, Message("user", "Sing."))
        assert task.scaffold.added(turns)[:2] == before
        assert task.scaffold.removed(task.scaffold.added(turns)) == turns


def test_data_that_an_earlier_version_prepared_are_read_without_it(tmp_path: Path) -> None:
    source = prepared.Provenance("gsm8k", "local", "", {}, {}, (), {})
    asked, plain = ASKED["gsm8k"]
    items = [
        Item(f"{n}", (Message("user", plain.replace("many", f"many {n}")),), answer="1", reference="1")
        for n in (1, 2)
    ]
    prepared.write(tmp_path, gsm8k.GSM8K, {"train": items}, source)
    read = gsm8k.GSM8K.items("train", Data(task="gsm8k", folder=str(tmp_path)))
    assert [item.messages[0].content for item in read] == [asked.replace("many", f"many {n}") for n in (1, 2)]
    assert [(item.answer, item.reference) for item in read] == [("1", "1")] * 2
