"""COM2: short answers to commonsense questions about causes and effects of events.

The paper's training prompts are published, its evaluation items are not. They are replaced by multiple-choice questions of the same data
set, asked without the choices and with the right choice as the reference.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sparta.grading import rubrics
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, LocalFile, Rows, Source, Splits, label_among, user_turn
from sparta.tasks.scaffold import Scaffold
from sparta.tasks.splits import apart, distinct, halved

PAPER = (7200, 400, 400)
PROMPT = "Use common sense to answer the question about the context, in a few words.\n\nContext: {context}\nQuestion: {question}"
NONE = "None of the answers are correct"
"""The last choice of every question."""
_QUESTION = re.compile(
    r".*?Context: (?P<context>.*)\nQuestion: (?P<question>.*?)(?:\nThe answer is:\s*)?", re.DOTALL
)


def _item(item_id: str, text: str, gold: str) -> Item:
    parts = _QUESTION.fullmatch(text)
    if parts is None:
        raise ValueError("it has no context and question")
    prompt = PROMPT.format(context=parts["context"].strip(), question=parts["question"].strip())
    return Item(item_id, user_turn(prompt), reference=gold.strip() or None)


def _train(rows: Iterator[dict[str, Any]]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        yield _item(f"train-{number}", row["prompt"], row["gold"])


def _scored(rows: Iterator[dict[str, Any]], dropped: Counter[str]) -> Iterator[Item]:
    for row in rows:
        gold = row["choices"][label_among(row["answer"], row["choices"])]
        if row["choices"]["E"] != NONE:
            dropped["validation, test: choices that were cut apart at quotation marks"] += 1
        elif gold == NONE:
            dropped["validation, test: no right choice to refer to"] += 1
        else:
            yield _item(f"question-{row['id']}", row["question"], gold)


def _read(rows: Rows) -> Splits:
    dropped: Counter[str] = Counter()
    stand_in = distinct(_scored(rows("scored"), dropped), dropped, "validation, test")
    validation, test = halved(stand_in, "com2", *PAPER[1:])
    train = apart(distinct(_train(rows("train")), dropped, "train"), (*validation, *test), dropped)
    beyond = len(stand_in) - len(validation) - len(test)
    if beyond:
        dropped["validation, test: more than the paper's numbers"] = beyond
    return Splits(
        tuple(train) or None,
        tuple(validation),
        tuple(test),
        dropped,
        (
            "validation and test stand in for the paper's, which are not published: questions of COM2 that have choices, with the right one as reference",
        ),
    )


TRAIN = LocalFile("train.json", "com2", "github.com/yurujiang2003/sparta: data/com2/train.json")

COM2 = Dataset(
    name="com2",
    title="COM²",
    metrics=(Metric("score", top=10.0, rubric=rubrics.COM2),),
    chat_template=False,
    max_new_tokens=128,
    scaffold=Scaffold(after="\nAnswer:"),
    stop=("\nContext:", "\nQuestion:"),
    local=Source(
        {
            "train": TRAIN,
            "scored": LocalFile(
                "com2.json",
                origin="github.com/BunsenFeng/heterogeneous_swarm: data/eval/com2.json",
                parts=("dev", "test"),
            ),
        },
        _read,
        frozenset({"train"}),
    ),
    hub=None,
    licence="MIT (tqfang229/COM2-commonsense; the training prompts, yurujiang2003/sparta)",
    paper=PAPER,
    missing={"train": f"put {TRAIN.described} below the folder"},
)
