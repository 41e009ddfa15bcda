"""Knowledge Crosswords: fill the blanks of a small knowledge graph so that every constraint holds; multiple choice.

Each graph has questions at up to three difficulties, which differ in how close the wrong options are. The paper's training items are
published, its evaluation items are not. Here the same number is drawn from the remaining items (901 of 2,101): first all items of graphs
without training items, then one item of each further graph. No graph is in both validation and test.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from sparta.rng import stream
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import (
    Dataset,
    LocalFile,
    Rows,
    Source,
    Splits,
    label_among,
    lettered,
    multiple_choice,
    right_letter,
    user_turn,
    with_another_end,
)
from sparta.tasks.splits import apart, distinct, shuffled

PAPER = (1200, 200, 200)
PROMPT = "Fill in the blanks so that every constraint holds. A constraint is (subject, relation, object).\n\n{question}\n\n"
ONE_LETTER = "Answer with the letter of the right choice."
REASON_FIRST = (
    "First give your reason: which constraints decide between the choices, in a few sentences. "
    "Then answer with the letter of the right choice on a line of its own."
)
"""Replaces ONE_LETTER in combats."""
DIFFICULTIES = ("easy", "medium", "hard")
KNOWN = "graph known from training"
_CONSTRAINTS = re.compile(r".*?\nConst(?:r)?aints: (?P<constraints>.*)\.\nOptions:.*", re.DOTALL)


def _item(item_id: str, constraints: str, choices: dict[str, str], answer: str, level: str) -> Item:
    return Item(
        item_id,
        user_turn(
            PROMPT.format(question=multiple_choice(f"Constraints: {constraints}", choices)) + ONE_LETTER
        ),
        reference=f"{answer}. {choices[answer]}",
        choices=choices,
        answer=answer,
        level=level,
    )


def _with_a_reason(item: Item) -> Item:
    return with_another_end(item, ONE_LETTER, REASON_FIRST)


def _given(row: dict[str, Any]) -> Item:
    """An item with four published choices."""
    parts = _CONSTRAINTS.fullmatch(row["question"])
    if parts is None:
        raise ValueError("its constraints are not where they are known to be")
    choices = {label: text.rstrip("; ") for label, text in row["choices"].items()}
    label = label_among(row["answer"], choices)
    return _item(f"{row['id']}-{row['domain']}", parts["constraints"], choices, label, row["domain"])


def _made(row: dict[str, Any], difficulty: str) -> Item:
    """An item with published options for each blank: its choices are the right combination and three wrong ones, drawn at random."""
    item_id = f"{row['id']}-{difficulty}"
    blanks: list[str] = row["blanks"]
    options: list[list[str]] = [row["options"][blank] for blank in blanks]
    right = tuple(row["answer_all"])
    rng = stream("tasks", "kcross", "choices", item_id)
    wrong = [drawn for drawn in itertools.product(*options) if drawn != right]
    combinations = [right, *rng.sample(wrong, 3)]
    rng.shuffle(combinations)
    choices = lettered(
        [
            "; ".join(f"{blank}: {entity}" for blank, entity in zip(blanks, drawn, strict=True))
            for drawn in combinations
        ]
    )
    triples = zip(row["source"], row["relation"], row["target"], strict=True)
    constraints = "; ".join(f"({', '.join(triple)})" for triple in triples)
    return _item(item_id, constraints, choices, list(choices)[combinations.index(right)], difficulty)


def _left_over(rows: Rows, train: list[Item]) -> Iterator[list[Item]]:
    """The items not in training, by graph: all items of graphs without training items, then one item of each other graph."""
    taken = {item.item_id for item in train}
    known = {item_id.rpartition("-")[0] for item_id in taken}
    graphs: dict[str, list[Item]] = defaultdict(list)
    for difficulty in DIFFICULTIES:
        for row in rows(difficulty):
            if f"{row['id']}-{difficulty}" not in taken:
                graphs[row["id"]].append(_made(row, difficulty))
    order = shuffled(sorted(graphs), "kcross", "graphs")
    for graph in order:
        if graph not in known:
            yield graphs[graph]
    for graph in order:
        if graph in known:
            item = shuffled(graphs[graph], "kcross", graph)[0]
            yield [msgspec.structs.replace(item, level=f"{item.level}, {KNOWN}")]


def _read(rows: Rows) -> Splits:
    dropped: Counter[str] = Counter()
    train = distinct(map(_given, rows("train")), dropped, "train")
    validation: list[Item] = []
    test: list[Item] = []
    for graph in _left_over(rows, train):
        if len(validation) >= PAPER[1] and len(test) >= PAPER[2]:
            break
        min(validation, test, key=len).extend(graph)
    validation, test = validation[: PAPER[1]], test[: PAPER[2]]
    return Splits(
        tuple(apart(train, (*validation, *test), dropped)),
        tuple(shuffled(validation, "kcross", "validation")),
        tuple(shuffled(test, "kcross", "test")),
        dropped,
        (_note([*validation, *test]),),
    )


def _note(scored: list[Item]) -> str:
    count = sum(item.level is not None and item.level.endswith(KNOWN) for item in scored)
    return (
        "validation and test are drawn from the published items that training lacks, the paper's are not published; "
        f"{count} of {len(scored)} ask at another difficulty about a graph of training: their level ends with {KNOWN!r}"
    )


_NAMES = ("MC_easy.jsonl", "MC_medi.jsonl", "MC_hard.jsonl")

KCROSS = Dataset(
    name="kcross",
    title="Knowledge Crosswords",
    metrics=(Metric("accuracy"),),
    chat_template=True,
    max_new_tokens=512,
    grader=right_letter,
    combat=_with_a_reason,
    local=Source(
        {
            "train": LocalFile(
                "knowledge_crosswords.json",
                origin="github.com/BunsenFeng/model_swarm: data/eval/knowledge_crosswords.json",
                parts=("test", "dev"),
            ),
            **{
                difficulty: LocalFile(
                    name,
                    origin=f"github.com/Wenwen-D/KnowledgeCrosswords: KnowledgeCrosswords_dataset/MC/{name}",
                )
                for difficulty, name in zip(DIFFICULTIES, _NAMES, strict=True)
            },
        },
        _read,
    ),
    hub=None,
    licence="none stated (Wenwen-D/KnowledgeCrosswords); Apache-2.0 (the training items, BunsenFeng/model_swarm)",
    paper=PAPER,
)
