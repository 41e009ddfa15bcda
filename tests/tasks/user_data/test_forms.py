"""The field's common forms and files: each is recognised unedited, with its questions and its answers."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks.base import Item
from sparta.tasks.user_data.items import UserItems, items_by_place
from sparta.tasks.user_data.task import UserTask


def turns(*texts: str, first: str = "user") -> list[dict[str, str]]:
    speakers = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": speakers[place % 2], "content": text} for place, text in enumerate(texts)]


def said(*texts: str, names: tuple[str, str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": names[place % 2], "value": text} for place, text in enumerate(texts)]


def read(path: Path, **data: Any) -> UserItems:
    found = UserTask(Data(train=str(path), **data)).read("train")
    found.items = items_by_place(found)  # type: ignore[attr-defined]
    return found


def items(path: Path, **data: Any) -> list[Item]:
    return list(read(path, **data).items.values())  # type: ignore[attr-defined]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(item: Item) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in item.messages]


FORMS: dict[str, tuple[dict[str, Any], list[tuple[str, str]], str | None, str | None]] = {
    "own": ({"prompt": "Why?", "answer": 5, "reference": "Because."}, [("user", "Why?")], "Because.", "5"),
    "completion": (
        {"prompt": "The sky is", "completion": " blue.", "source": "web"},
        [("user", "The sky is")],
        " blue.",
        None,
    ),
    "completion of turns": (
        {"prompt": turns("What colour?"), "completion": turns("Blue.", first="assistant")},
        [("user", "What colour?")],
        "Blue.",
        None,
    ),
    "prompt of turns": (
        {"prompt": turns("a", "b", "c")},
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        None,
        None,
    ),
    "messages": (
        {"messages": turns("a", "b", "c", "d"), "prompt": "a", "prompt_id": "f0"},
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        "d",
        None,
    ),
    "parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
            ]
        },
        [("user", "ab")],
        None,
        None,
    ),
    "sharegpt": (
        {"id": "x1", "conversations": said("a", "b", "c", "d")},
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        "d",
        None,
    ),
    "sharegpt with system": (
        {"system": "Be brief.", "conversations": said("a", "b")},
        [("system", "Be brief."), ("user", "a")],
        "b",
        None,
    ),
    "alpaca": (
        {"instruction": "Sort these.", "input": "3 1 2", "output": "1 2 3", "text": "all of it"},
        [("user", "Sort these.\n\n3 1 2")],
        "1 2 3",
        None,
    ),
    "dolly": (
        {"instruction": "Who?", "context": "", "response": "Ada.", "category": "open_qa"},
        [("user", "Who?")],
        "Ada.",
        None,
    ),
    "question": ({"question": "2+2?", "answer": "4"}, [("user", "2+2?")], None, "4"),
    "problem": (
        {"problem": "Solve.", "solution": "Thus 3.", "answer": "3", "level": "Level 1", "type": "Algebra"},
        [("user", "Solve.")],
        "Thus 3.",
        "3",
    ),
    "choices with labels": (
        {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
        [("user", "Which?")],
        None,
        "B",
    ),
    "preference": (
        {"prompt": "a", "chosen": turns("a", "good"), "rejected": turns("a", "bad"), "score_chosen": 8.0},
        [("user", "a")],
        "good",
        None,
    ),
    "preference without a prompt": (
        {"chosen": turns("a", "b", "c", "good"), "rejected": turns("a", "b", "c", "bad")},
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        "good",
        None,
    ),
    "completion called response": (
        {"prompt": "Why?", "response": "Because.", "helpfulness": 3},
        [("user", "Why?")],
        "Because.",
        None,
    ),
    "preference with a question": (
        {"system": "Be brief.", "question": "Why?", "chosen": "Good.", "rejected": "Bad."},
        [("system", "Be brief."), ("user", "Why?")],
        "Good.",
        None,
    ),
    "preference as dialogue": (
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Good.",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Bad.",
        },
        [("user", "Hi?"), ("assistant", "Yes?"), ("user", "Why?")],
        "Good.",
        None,
    ),
    "instructions with many completions": (
        {"instruction": "Why?", "models": ["a", "b"], "completions": [{"response": "x"}, {"response": "y"}]},
        [("user", "Why?")],
        None,
        None,
    ),
    "conversations of texts": (
        {"conversations": ["a", "b", "c"], "source": "web"},
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        None,
        None,
    ),
    "question with a system prompt": (
        {"id": "n1", "system_prompt": "Be kind.", "question": "Why?", "response": "Because."},
        [("system", "Be kind."), ("user", "Why?")],
        "Because.",
        None,
    ),
    "choices with the place of the right one": (
        {"question": "Which?", "choices": ["x", "y"], "answer": 1, "subject": "letters"},
        [("user", "Which?")],
        None,
        "B",
    ),
    "question with answers in a passage": (
        {
            "context": "It is late.",
            "question": "How late?",
            "answers": {"text": ["late"], "answer_start": [6]},
        },
        [("user", "It is late.\n\nHow late?")],
        None,
        None,
    ),
    "inputs and targets": ({"inputs": "Why?", "targets": "Because."}, [("user", "Why?")], "Because.", None),
    "prompt beside other columns": (
        {"prompt": "a", "source": "web", "score": 3},
        [("user", "a")],
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_recognised_with_its_question_and_its_answer(name: str, tmp_path: Path) -> None:
    row, question, reference, answer = FORMS[name]
    [item] = items(lines(tmp_path / "mine.jsonl", row))
    assert (asked(item), item.reference, item.answer) == (question, reference, answer)


ROWS = [{"question": f"{number} and {number}?", "answer": f"0{number}"} for number in range(3)]


def _csv(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter="\t" if ".tsv" in path.name else ",")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _json(path: Path, rows: list[dict[str, str]]) -> None:
    data = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _parquet(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _arrow_file(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), str(path))


def _arrow_stream(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _saved(path: Path, rows: list[dict[str, str]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))


def _saved_splits(path: Path, rows: list[dict[str, str]]) -> None:
    import datasets

    train, test = datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows[:1])
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(path))


def _files(path: Path, rows: list[dict[str, str]]) -> None:
    path.mkdir()
    _jsonl(path / "train.jsonl", rows)
    _jsonl(path / "test.jsonl", rows[:1])


FILES: dict[str, Callable[[Path, list[dict[str, str]]], None]] = {
    "mine.jsonl": _jsonl,
    "mine.jsonl.gz": _jsonl,
    "mine.txt": _jsonl,
    "mine.json": _json,
    "mine.json.gz": _json,
    "mine.csv": _csv,
    "mine.csv.gz": _csv,
    "mine.tsv": _csv,
    "mine.parquet": _parquet,
    "mine.feather": _arrow_file,
    "mine.arrow": _arrow_stream,
    "saved": _saved,
    "saved_splits": _saved_splits,
    "files": _files,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_kind_gives_the_same_items_with_all_digits(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name, ROWS)
    found = items(tmp_path / name)
    assert [(item.messages[0].content, item.answer) for item in found] == [
        (row["question"], row["answer"]) for row in ROWS
    ]


def test_an_empty_cell_is_no_value(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("instruction,input,output\nSay hi.,,hi\nAdd.,1 2,3\n")
    first, second = items(tmp_path / "mine.csv")
    assert [first.messages[0].content, second.messages[0].content] == ["Say hi.", "Add.\n\n1 2"]


def test_columns_of_any_name_are_read_where_the_recipe_names_them(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", {"q": "Why?", "gold": 3, "id": None, "x": {"deep": 1}})
    [item] = items(path, columns={"question": "q", "answer": "gold"})
    assert (asked(item), item.answer) == ([("user", "Why?")], "3")


def test_a_split_of_a_folder_is_read_by_its_name(tmp_path: Path) -> None:
    _saved_splits(tmp_path / "saved", ROWS)
    assert len(items(tmp_path / "saved", split="test")) == 1
    both = Data(
        train=str(tmp_path / "saved"), validation=str(tmp_path / "saved"), split={"validation": "test"}
    )
    assert len(items_by_place(UserTask(both).read("validation"))) == 1


def test_what_was_recognised_and_what_was_not_used_is_said(tmp_path: Path) -> None:
    rows = [{"instruction": text, "output": "x", "topic": "t"} for text in ("one", "two", " ", "four")]
    found = read(lines(tmp_path / "mine.jsonl", *rows))
    assert len(found.items) == 3  # type: ignore[attr-defined]
    assert found.notes == [
        f"{tmp_path}/mine.jsonl: alpaca form (instruction); not used: topic",
        f"{tmp_path}/mine.jsonl: 1 rows with an empty prompt left out",
    ]


@pytest.mark.parametrize(
    ("rows", "data", "why"),
    [
        (
            [{"text": "a", "label": 1}],
            {},
            "line 1: its columns are text, label, which is no form that is known",
        ),
        ([{"promt": "a", "text": "b"}], {}, "line 1: unknown key promt, did you mean prompt?"),
        (
            [{"question": "a", "anwser": "b"}],
            {},
            "line 1: unknown key anwser, did you mean answer? Rename it, or name",
        ),
        ([{"question": "a"}, {"q": "b"}], {}, "line 2: its columns are q, which is no form"),
        (
            [{"question": "a"}, {"instruction": "b"}],
            {},
            "line 2: it lacks question or problem or query or input or inputs, which the rows",
        ),
        ([{"q": "a"}], {"columns": {"prompt": "qq"}}, "line 1: data.columns names qq, but its columns are q"),
        (
            [{"question": "a"}],
            {"format": "alpaca"},
            "line 1: data.format alpaca needs instruction, but its columns are",
        ),
        ([{"instruction": 5}], {}, "line 1: instruction is int, no text"),
        ([{"conversations": "hi"}], {}, "line 1: conversations is no list of turns"),
        (
            [{"conversations": [{"from": "tool", "value": "x"}]}],
            {},
            "line 1: conversations: turn 1 is of 'tool'",
        ),
        (
            [{"conversations": [{"from": "human", "value": 3}]}],
            {},
            "line 1: conversations: turn 1 is no text",
        ),
        (
            [{"messages": [{"role": "user", "content": [{"type": "image"}]}], "x": 1}],
            {},
            "line 1: messages: turn 1 is no text",
        ),
        (
            [{"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}], "x": 1}],
            {},
            "line 1: messages: turn 1 calls a tool",
        ),
        ([{"chosen": "a", "rejected": "b"}], {}, "line 1: chosen is a text and there is no prompt"),
        (
            [{"question": "a", "choices": {"text": ["x"], "label": ["A", "B"]}}],
            {},
            "line 1: choices have another number of texts than of labels",
        ),
        (
            [{"messages": turns("a", "b"), "reference": "c"}],
            {},
            "line 1: it has an answer at the end of its turns and",
        ),
        (
            [{"instruction": "a", "output": "b", "reference": "c"}],
            {},
            "line 1: it has a reference twice, 'c' and 'b'",
        ),
        ([{"prompt": ["a", "b"], "category": "x"}], {}, "line 1: prompt: turn 1 is no object with role"),
        (
            [{"question": "a", "choices": ["2", "3", "4", "5"], "answer": 3}],
            {},
            "line 1: its answer 3 is the place of one",
        ),
        (
            [{"question": "a", "choices": [f"c{n}" for n in range(30)], "answer": 27}],
            {},
            "line 1: it has 30 choices",
        ),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_with_their_place(
    rows: list[dict[str, Any]], data: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(SpartaError) as error:
        read(path, **data)
    assert f"{path}, {why}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prompt_is_asked_whatever_other_columns_are_called(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", {"prompt": "Translate to French: hello", "input": "hello"})
    assert asked(items(path)[0]) == [("user", "Translate to French: hello")]
    assert asked(items(path, format="question")[0]) == [("user", "hello")]


def test_of_columns_for_the_same_the_first_with_a_value_counts(tmp_path: Path) -> None:
    rows = (
        {"prompt": "q", "completion": None, "response": "r"},
        {"question": None, "query": "w", "output": "r"},
    )
    for number, row in enumerate(rows):
        [item] = items(lines(tmp_path / f"{number}.jsonl", row))
        assert asked(item)[0][1] in ("q", "w") and item.reference == "r"


def test_a_file_of_rows_without_a_question_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl", {"conversations": said("a", names=("gpt", "human"))})
    with pytest.raises(SpartaError, match="has no instructions: at least one is needed, check data.train"):
        read(path)


@pytest.mark.parametrize("name", ["mine.parquet", "mine.arrow", "mine.jsonl.gz", "mine.csv", "mine.json"])
def test_a_broken_file_is_named(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / name, ROWS)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"\x00\xff\xfe" + whole[: len(whole) // 2])
    with pytest.raises(SpartaError, match=name) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    _saved_splits(tmp_path / "saved", ROWS)
    with pytest.raises(SpartaError, match=r"saved has no split dev, but train, test: name one in data.split"):
        read(tmp_path / "saved", split="dev")


def test_a_data_set_that_was_not_fetched_is_refused_with_the_remedy(tmp_path: Path) -> None:
    data = Data(train="hub:org/set@v1", folder=str(tmp_path))
    with pytest.raises(
        SpartaError, match=r"hub:org/set@v1 \(train\) is not in .*hub/org/set@v1: run .* --fetch"
    ):
        items_by_place(UserTask(data).read("train"))


@pytest.mark.parametrize("path", ["/etc/secret.jsonl", "../secret.jsonl", "https://example.org/secret.jsonl"])
@pytest.mark.parametrize("form", ["- path: {}", "{}", "- split: train\n    path:\n    - {}"])
def test_the_page_of_a_folder_cannot_name_rows_outside_it(path: str, form: str, tmp_path: Path) -> None:
    _jsonl(tmp_path / "secret.jsonl", ROWS)
    _files(tmp_path / "files", ROWS)
    named = form.format(path)
    data_files = f" {named}" if named == path else f"\n  {named}"
    (tmp_path / "files" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:{data_files}\n---\n"
    )
    with pytest.raises(SpartaError, match=r"README.md names .*secret.jsonl, which is not in its folder"):
        read(tmp_path / "files")


def test_a_saved_data_set_cannot_name_rows_outside_it(tmp_path: Path) -> None:
    _saved(tmp_path / "saved", ROWS)
    _saved(tmp_path / "other", ROWS)
    index = tmp_path / "saved" / "state.json"
    known = json.loads(index.read_text())
    known["_data_files"][0]["filename"] = "../other/" + known["_data_files"][0]["filename"]
    index.write_text(json.dumps(known))
    with pytest.raises(SpartaError, match=r"state.json names \.\./other/.*, which is not in its folder"):
        read(tmp_path / "saved")
