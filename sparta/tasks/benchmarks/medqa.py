"""MedQA-US: questions of the United States medical licensing examination.

The published test questions are split in their order, as by the paper's authors: 636 and 637.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sparta.grading import rubrics
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import (
    Dataset,
    HubSplit,
    LocalFile,
    Rows,
    Source,
    Splits,
    label_among,
    multiple_choice,
    right_letter,
    user_turn,
)
from sparta.tasks.scaffold import Scaffold
from sparta.tasks.splits import apart, distinct

PAPER = (10178, 636, 637)
REVISION = "0fb93dd23a7339b6dcd27e241cb9b5eca62d4d18"
LEAD = (
    "Answer the medical question. Write the letter of the right option first, then explain your choice.\n\n"
)


SPECIES = (
    *(
        "albicans",
        "anthracis",
        "botulinum",
        "burgdorferi",
        "burnetii",
        "cereus",
        "coli",
        "corrodens",
        "diff",
        "difficile",
    ),
    *(
        "diphtheriae",
        "faecalis",
        "faecium",
        "fragilis",
        "granulosus",
        "henselae",
        "histolytica",
        "immitis",
        "jejuni",
        "microti",
    ),
    *("neoformans", "perfringens", "pertussis", "psittaci", "tetani", "trachomatis"),
)
"""Species of germs whose genus is abbreviated to a letter that is also a choice: in `E. coli` and `C. difficile` the letter is no choice."""


def _items(rows: Iterator[dict[str, Any]], part: str) -> Iterator[Item]:
    for number, row in enumerate(rows):
        choices = {label: text.strip() for label, text in sorted(row["options"].items())}
        label = label_among(row["answer_idx"], choices)
        yield Item(
            f"{part}-{number}",
            user_turn(LEAD + multiple_choice(row["question"].strip(), choices)),
            reference=f"{label}. {choices[label]}",
            choices=choices,
            answer=label,
            level=row.get("meta_info"),
        )


def _right_letter(item: Item, text: str) -> dict[str, float]:
    return right_letter(item, text, SPECIES)


def _read(rows: Rows, *notes: str) -> Splits:
    dropped: Counter[str] = Counter()
    scored = distinct(_items(rows("test"), "test"), dropped, "test")
    train = apart(distinct(_items(rows("train"), "train"), dropped, "train"), scored, dropped)
    return Splits(tuple(train) or None, tuple(scored[: PAPER[1]]), tuple(scored[PAPER[1] :]), dropped, notes)


def _read_hub(rows: Rows) -> Splits:
    return _read(rows, "the hub's questions have four options, those of the files five")


TRAIN = LocalFile(
    "train.jsonl",
    "medqa",
    "the archive that github.com/jind11/MedQA links: questions/US/train.jsonl, 10,178 questions with five options",
)

MEDQA = Dataset(
    name="medqa",
    title="MedQA-US",
    metrics=(
        Metric("accuracy"),
        Metric("comprehensiveness", top=10.0, rubric=rubrics.MEDQA_COMPREHENSIVENESS),
        Metric("informativeness", top=10.0, rubric=rubrics.MEDQA_INFORMATIVENESS),
        Metric("coherence", top=10.0, rubric=rubrics.MEDQA_COHERENCE),
    ),
    chat_template=False,
    max_new_tokens=512,
    scaffold=Scaffold(LEAD, "Question: ", "\nAnswer:"),
    stop=("\nQuestion:",),
    grader=_right_letter,
    local=Source(
        {
            "train": TRAIN,
            "test": LocalFile(
                "medqa_us_5opt_test.jsonl",
                origin="github.com/gersteinlab/MedAgents: datasets/MedQA/test.jsonl, renamed",
            ),
        },
        _read,
        frozenset({"train"}),
    ),
    hub=Source(
        {
            split: HubSplit("GBaker/MedQA-USMLE-4-options", None, split, REVISION)
            for split in ("train", "test")
        },
        _read_hub,
    ),
    licence="MIT (jind11/MedQA); CC BY 4.0 (the hub's copy)",
    paper=PAPER,
    missing={"train": f"put {TRAIN.described} below the folder"},
)
