"""Ten files of data in the forms of public sets: a dry run on each, unedited, shows how many instructions it has and the first."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripted_run import typed, write_recipe

FIRST = "Name a river of Peru."
OTHERS = ("How many legs has a spider?", "Write a line about rain.")


def turns(question: str, speaker: str, text: str, names: tuple[str, str]) -> list[dict[str, str]]:
    return [{speaker: names[0], text: question}, {speaker: names[1], text: "An answer."}]


def chat(question: str) -> list[dict[str, str]]:
    return turns(question, "role", "content", ("user", "assistant"))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def whole(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=2))


def zipped(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


Row = Callable[[str], dict[str, Any]]
Write = Callable[[Path, list[dict[str, Any]]], None]
FILES: dict[str, tuple[str, Write, Row]] = {
    "alpaca": ("a.json", whole, lambda asked: {"instruction": asked, "input": "", "output": "An answer."}),
    "sharegpt": (
        "a.json",
        whole,
        lambda asked: {"id": asked[:4], "conversations": turns(asked, "from", "value", ("human", "gpt"))},
    ),
    "preferences": (
        "a.parquet",
        parquet,
        lambda asked: {
            "prompt": asked,
            "prompt_id": "0f",
            "chosen": chat(asked),
            "rejected": chat(asked),
            "messages": chat(asked),
            "score_chosen": 8.5,
            "score_rejected": 3.0,
        },
    ),
    "implicit prompt": ("a.jsonl", jsonl, lambda asked: {"chosen": chat(asked), "rejected": chat(asked)}),
    "dolly": (
        "a.jsonl",
        jsonl,
        lambda asked: {"instruction": asked, "context": "", "response": "An answer.", "category": "open_qa"},
    ),
    "threads": (
        "a.jsonl.gz",
        zipped,
        lambda asked: {
            "messages": turns(asked, "role", "content", ("prompter", "assistant")),
            "lang": "en",
            "tree": asked[:4],
        },
    ),
    "gsm8k": ("a.jsonl", jsonl, lambda asked: {"question": asked, "answer": "One and two.\n#### 3"}),
    "openai": (
        "a.jsonl",
        jsonl,
        lambda asked: {"messages": [{"role": "system", "content": "Be brief."}, *chat(asked)]},
    ),
    "prompts": ("a.csv", table, lambda asked: {"prompt": asked}),
    "multiple choice": (
        "a.parquet",
        parquet,
        lambda asked: {"question": asked, "subject": "all", "choices": ["one", "two", "three"], "answer": 2},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_dry_run_on_a_file_shows_how_many_instructions_it_has_and_the_first(
    name: str, tmp_path: Path
) -> None:
    file, write, row = FILES[name]
    write(tmp_path / file, [row(asked) for asked in (FIRST, *OTHERS)])
    recipe = write_recipe(tmp_path, data={"train": f"./{file}"})
    done = typed("launch", "--recipe", recipe, "--state", tmp_path / "state", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"3 to draw from, the first: {FIRST}" in " ".join(done.stdout.split())
