"""Alpaca: general instructions. Trained on Alpaca's instructions, scored on AlpacaEval's 805 with reference answers by gpt-4-1106-preview."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from sparta.grading import rubrics
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, HubSplit, LocalFile, Rows, Source, Splits, user_turn
from sparta.tasks.scaffold import Scaffold
from sparta.tasks.splits import apart, distinct, halved

PAPER = (52002, 402, 403)
REVISION = "dce01c9b08f87459cf36a430d809084718273017"
WHOLE = LocalFile("alpaca_data.json", origin="github.com/tatsu-lab/stanford_alpaca: alpaca_data.json")
PARTS: Mapping[str, LocalFile] = {
    name: LocalFile(f"{name}.json", origin=origin)
    for name, origin in (
        ("random_9k", "github.com/gpt4life/alpagasus: data/random/random_9k.json"),
        ("claude_t45", "github.com/gpt4life/alpagasus: data/filtered/claude_t45.json"),
        ("helpfulness_t45", "github.com/gpt4life/alpagasus: data/filtered/helpfulness_t45.json"),
        ("alpaca_5000", "github.com/tatsu-lab/stanford_alpaca at commit 5e69c500: data/alpaca_5000.json"),
    )
}
"""Published subsets, which overlap."""
REFERENCES = LocalFile(
    "alpaca_eval_gpt4_1106_preview.json",
    origin="github.com/tatsu-lab/alpaca_eval: results/gpt4_1106_preview/model_outputs.json, renamed",
)
REFERENCES_NOTE = "references are the answers of gpt-4-1106-preview (AlpacaEval 2)"
PARTS_NOTE = f"train is what four published subsets hold together, not all of the 52,002: for these put {WHOLE.described} below the folder"


def _prompt(instruction: str, given: str = "") -> str:
    return f"{instruction.strip()}\n\nInput: {given.strip()}" if given.strip() else instruction.strip()


def _train(rows: Iterable[dict[str, Any]]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        prompt = _prompt(row["instruction"], row["input"])
        yield Item(f"train-{number}", user_turn(prompt), reference=row["output"].strip() or None)


def _scored(rows: Iterable[dict[str, Any]]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        prompt = _prompt(row["instruction"])
        yield Item(
            f"eval-{number}", user_turn(prompt), reference=row["output"].strip() or None, level=row["dataset"]
        )


def _splits(train: Iterable[Item], scored: Iterable[dict[str, Any]], *notes: str) -> Splits:
    dropped: Counter[str] = Counter()
    prompts = distinct(_scored(scored), dropped, "validation, test")
    learned = apart(distinct(train, dropped, "train"), prompts, dropped)
    validation, test = halved(prompts, "alpaca", PAPER[1])
    return Splits(tuple(learned) or None, tuple(validation) or None, tuple(test) or None, dropped, notes)


def _read_local(rows: Rows) -> Splits:
    whole = list(_train(rows("whole")))
    parts = [] if whole else list(_train(chain.from_iterable(map(rows, PARTS))))
    notes = (REFERENCES_NOTE, *([PARTS_NOTE] if parts else []))
    return _splits(whole or parts, rows("scored"), *notes)


def _read_hub(rows: Rows) -> Splits:
    return _splits(_train(rows("whole")), ())


ALPACA = Dataset(
    name="alpaca",
    title="Alpaca",
    metrics=(Metric("score", top=10.0, rubric=rubrics.ALPACA),),
    chat_template=False,
    max_new_tokens=512,
    scaffold=Scaffold(before="Instruction: ", after="\n\nResponse:"),
    stop=("\nInstruction:",),
    local=Source(
        {"whole": WHOLE, **PARTS, "scored": REFERENCES},
        _read_local,
        frozenset({"whole", *PARTS}),
    ),
    hub=Source({"whole": HubSplit("tatsu-lab/alpaca", None, "train", REVISION)}, _read_hub),
    licence="CC BY-NC 4.0",
    paper=PAPER,
    missing={
        "train": f"put {WHOLE.described} below the folder",
        **dict.fromkeys(
            ("validation", "test"),
            f"the hub has AlpacaEval only as a program that is no longer run; put {REFERENCES.described} below a folder and add --from",
        ),
    },
)
