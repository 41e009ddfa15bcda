"""GSM8K: grade-school word problems with worked answers."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, HubSplit, LocalFile, Rows, Source, Splits, user_turn
from sparta.tasks.scaffold import Scaffold
from sparta.tasks.splits import apart, distinct, halved

PAPER = (7473, 660, 659)
REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
LEAD = "Solve the problem step by step. Then write #### and the final number, on a line of their own.\n\n"
_CALCULATION = re.compile(r"<<[^<>]*>>")
"""Calculator annotations in the worked answers."""


def _items(rows: Iterator[dict[str, Any]], part: str) -> Iterator[Item]:
    for number, row in enumerate(rows):
        worked, mark, answer = row["answer"].rpartition("####")
        worked = _CALCULATION.sub("", worked).strip()
        answer = answer.strip().replace(",", "")
        if not mark or not answer:
            raise ValueError("its answer has no number after ####")
        yield Item(
            f"{part}-{number}",
            user_turn(LEAD + row["question"].strip()),
            reference=f"{worked}\n#### {answer}",
            answer=answer,
        )


def _read(rows: Rows) -> Splits:
    dropped: Counter[str] = Counter()
    scored = distinct(_items(rows("test"), "test"), dropped, "test")
    train = apart(distinct(_items(rows("train"), "train"), dropped, "train"), scored, dropped)
    validation, test = halved(scored, "gsm8k", PAPER[1])
    return Splits(tuple(train), tuple(validation), tuple(test), dropped)


def _right_number(item: Item, text: str) -> dict[str, float]:
    from sparta.grading.numbers import same_number

    same = same_number(item.answer or "", text)
    return {} if same is None else {"accuracy": float(same)}


def _on_hub(split: str) -> HubSplit:
    return HubSplit("openai/gsm8k", "main", split, REVISION)


_FILES: Mapping[str, LocalFile] = {
    split: LocalFile(
        f"{split}.jsonl",
        "gsm8k",
        f"github.com/openai/grade-school-math: grade_school_math/data/{split}.jsonl",
    )
    for split in ("train", "test")
}

GSM8K = Dataset(
    name="gsm8k",
    title="GSM8K",
    metrics=(Metric("accuracy"),),
    chat_template=False,
    max_new_tokens=512,
    scaffold=Scaffold(LEAD, "Question: ", "\nAnswer:"),
    stop=("\nQuestion:",),
    grader=_right_number,
    local=Source(_FILES, _read),
    hub=Source({split: _on_hub(split) for split in ("train", "test")}, _read),
    licence="MIT",
    paper=PAPER,
)
