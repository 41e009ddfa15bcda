r"""MATH at three difficulties: easy is levels 1 and 2, medium 3, hard 4 and 5. The published test problems of each are halved.

The training split of each shares no problem with the validation and test splits of all three, because a model trained on one may be
scored on the others.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from sparta.grading.boxes import boxes
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, HubSplit, LocalFile, Rows, Source, Splits, user_turn
from sparta.tasks.scaffold import Scaffold
from sparta.tasks.splits import apart, distinct, halved

LEVELS: Mapping[str, tuple[str, ...]] = {
    "easy": ("Level 1", "Level 2"),
    "medium": ("Level 3",),
    "hard": ("Level 4", "Level 5"),
}
PAPER: Mapping[str, tuple[int, int, int]] = {
    "easy": (1912, 666, 665),
    "medium": (1592, 566, 565),
    "hard": (2994, 1269, 1269),
}
REVISION = "21a5633873b6a120296cce3e2df9d5550074f4a3"
SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
LEAD = "Solve the problem step by step and put the final answer, and nothing else, into \\boxed{}.\n\n"
UNBOXED = r"Let $\boxed{N}$ mean the number of whole number divisors of $N$"
"""The beginning of the one problem that contains boxes itself, so that its solution does not box the answer."""
_BARE = re.compile(r"\\(?:boxed|fbox)\s+(?P<answer>[^\s$.]+)|\\(?:boxed|fbox)(?P<digit>\d)")
"""A box without braces, which a few solutions have."""


def answer_of(solution: str) -> str:
    """The content of the last box of a published solution; "" if it has no box."""
    if found := boxes(solution):
        return found[-1].content.strip()
    bare = list(_BARE.finditer(solution))
    return (bare[-1]["answer"] or bare[-1]["digit"]) if bare else ""


def _items(
    rows: Iterator[dict[str, Any]], part: str, difficulty: str, dropped: Counter[str]
) -> Iterator[Item]:
    """Problems of all levels. part: train, test, or a subject of one (train-algebra). The answers are extracted from the solutions.

    dropped: counts those without an answer that belong to `difficulty`.
    """
    split = part.partition("-")[0]
    for number, row in enumerate(rows):
        solution = row.get("solution")
        answer = answer_of(solution) if solution else row["answer"].strip()
        if not answer or row["problem"].lstrip().startswith(UNBOXED):
            if row["level"] in LEVELS[difficulty]:
                dropped[f"{split}: no answer"] += 1
        elif row["level"] not in {level for levels in LEVELS.values() for level in levels}:
            dropped[f"{split}: no level"] += 1
        else:
            # Ids in the files differ or are missing, so the position in the published file is the id.
            yield Item(
                f"{part}-{number}",
                user_turn(LEAD + row["problem"].strip()),
                reference=solution,
                answer=answer,
                level=row["level"],
            )


def _splits(
    difficulty: str,
    train: Callable[[Counter[str]], Iterator[Item]],
    test: Callable[[Counter[str]], Iterator[Item]],
    *notes: str,
) -> Splits:
    def at(items: Iterator[Item]) -> list[Item]:
        return [item for item in items if item.level in LEVELS[difficulty]]

    dropped: Counter[str] = Counter()
    every = list(test(dropped))
    scored = distinct(at(iter(every)), dropped, "test")
    learned = apart(distinct(at(train(dropped)), dropped, "train"), every, dropped)
    validation, rest = halved(scored, f"math_{difficulty}", PAPER[difficulty][1])
    return Splits(tuple(learned) or None, tuple(validation), tuple(rest), dropped, notes)


def _read_local(difficulty: str, rows: Rows) -> Splits:
    def train(dropped: Counter[str]) -> Iterator[Item]:
        return _items(rows("train"), "train", difficulty, dropped)

    def test(dropped: Counter[str]) -> Iterator[Item]:
        return _items(rows("test"), "test", difficulty, dropped)

    return _splits(difficulty, train, test, *_NOTES.get(difficulty, ()))


def _read_hub(difficulty: str, rows: Rows) -> Splits:
    def of(part: str, dropped: Counter[str]) -> Iterator[Item]:
        for subject in SUBJECTS:
            yield from _items(rows(f"{part} {subject}"), f"{part}-{subject}", difficulty, dropped)

    return _splits(difficulty, partial(of, "train"), partial(of, "test"), *_NOTES.get(difficulty, ()))


_NOTES = {
    "hard": (
        "the published training set has 3,994 problems of levels 4 and 5, the paper says 2,994: none is left out for that",
    )
}


def _right(item: Item, text: str) -> dict[str, float]:
    from sparta.grading.mathematical import same_mathematics

    same = same_mathematics(item.answer or "", text)
    return {} if same is None else {"accuracy": float(same)}


_COPY = "github.com/zifanwangsteven/assignment5-alignment: data/MATH"


def _dataset(difficulty: str, train: LocalFile) -> Dataset:
    return Dataset(
        name=f"math_{difficulty}",
        title=f"MATH {difficulty.capitalize()}",
        metrics=(Metric("accuracy"),),
        chat_template=False,
        max_new_tokens=1024,
        scaffold=Scaffold(LEAD, "Problem: ", "\nSolution:"),
        stop=("\nProblem:",),
        grader=_right,
        local=Source(
            {
                "train": train,
                "test": LocalFile(
                    "validation.jsonl", "math", f"{_COPY}/validation.jsonl: MATH's 5,000 test problems"
                ),
            },
            partial(_read_local, difficulty),
            frozenset({"train"}),
        ),
        hub=Source(
            {
                f"{part} {subject}": HubSplit("EleutherAI/hendrycks_math", subject, part, REVISION)
                for part in ("train", "test")
                for subject in SUBJECTS
            },
            partial(_read_hub, difficulty),
        ),
        licence="MIT",
        paper=PAPER[difficulty],
        missing={"train": f"put {train.described} below the folder"},
    )


def _authors(difficulty: str) -> LocalFile:
    path = f"data/MATH/train_by_difficulty/{difficulty}.jsonl"
    return LocalFile(f"train_{difficulty}.jsonl", "math", f"github.com/yurujiang2003/sparta: {path}, renamed")


EASY = _dataset("easy", _authors("easy"))
MEDIUM = _dataset("medium", _authors("medium"))
HARD = _dataset("hard", LocalFile("train.jsonl", "math", f"{_COPY}/train.jsonl"))
