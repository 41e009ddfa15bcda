"""Loading of an expert's training data as named in a recipe, with one sentence for everything that is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.recipes.load import load
from sparta.tasks import prepared
from sparta.tasks.chats import Chat
from sparta.tasks.sft_data.load import sft_rows_of


def chat(row_id: str, asked: str, answered: str) -> Chat:
    return Chat(row_id, (Message("user", asked), Message("assistant", answered)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of prepared data with ten rows of LIMA."""
    source = prepared.Provenance("lima", "local", "none", files={}, dropped={}, notes=(), missing={})
    prepared.write_chats(
        tmp_path / "data", "lima", [chat(f"lima-{n}", f"q{n}", f"a{n}") for n in range(10)], source
    )
    return tmp_path / "data"


def put(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "mine.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_prepared_subset_is_read_in_its_order(folder: Path) -> None:
    rows = sft_rows_of("lima", folder, None, 0)
    assert rows == [chat(f"lima-{n}", f"q{n}", f"a{n}") for n in range(10)]


def test_a_part_is_drawn_by_seed_and_kept_in_order(folder: Path) -> None:
    every = sft_rows_of("lima", folder, None, 0)
    drawn = {seed: sft_rows_of("lima", folder, 4, seed) for seed in range(5)}
    for rows in drawn.values():
        assert len(rows) == 4 and rows == [row for row in every if row in rows]
    assert sft_rows_of("lima", folder, 4, 3) == drawn[3]
    assert len({tuple(row.row_id for row in rows) for rows in drawn.values()}) > 1
    assert sft_rows_of("lima", folder, 10, 1) == every


def test_more_rows_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(SpartaError, match="lima has 10 rows to train on, but size is 11"):
        sft_rows_of("lima", folder, 11, 0)


def test_what_is_not_prepared_or_unknown_is_said_with_the_command(folder: Path) -> None:
    with pytest.raises(
        SpartaError,
        match=f"the data of cot is not prepared in {folder}: run python jobs/prepare_data.py cot --folder",
    ):
        sft_rows_of("cot", folder, None, 0)
    with pytest.raises(
        SpartaError,
        match="there is no subset code_alpacca to train on; did you mean code_alpaca, which python jobs/prepare_data.py code_alpaca",
    ):
        sft_rows_of("code_alpacca", folder, None, 0)
    with pytest.raises(SpartaError, match="there is no subset xyz to train on; known are flan_v2, cot"):
        sft_rows_of("xyz", folder, None, 0)


def test_a_subset_that_was_changed_since_is_refused(folder: Path) -> None:
    with (folder / "lima" / "train.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(
        SpartaError, match="was changed since it was prepared: run python jobs/prepare_data.py lima"
    ):
        sft_rows_of("lima", folder, None, 0)


def test_the_lessons_of_the_toy_pool_are_embedded(folder: Path) -> None:
    from sparta.toy import EXPERTS

    name = next(iter(EXPERTS))
    rows = sft_rows_of(f"embedded:{name}", folder, 50, 0)
    assert len(rows) == 50 and len({row.row_id for row in rows}) == 50
    assert all([turn.role for turn in row.messages] == ["user", "assistant"] for row in rows)
    with pytest.raises(
        SpartaError, match="embedded:nobody names no data to train on: there is no toy expert nobody"
    ):
        sft_rows_of("embedded:nobody", folder, None, 0)


def test_a_file_is_taken_from_the_folder_of_the_recipe_that_names_it(tmp_path: Path) -> None:
    lessons = ("mine.jsonl", "./mine.jsonl", "lima", "embedded:ada")
    models = [{"name": f"m{n}", "sft": {"data": data, "epochs": 2}} for n, data in enumerate(lessons)]
    tree = {"name": "x", "pool": {"base": "b", "models": models}, "data": {"task": "toy"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    found = [model.sft and model.sft.data for model in load(tmp_path / "recipe.yaml").pool.models]
    assert found == [str(tmp_path / "mine.jsonl")] * 2 + ["lima", "embedded:ada"]


def test_a_file_of_one_s_own_has_messages_or_a_prompt_with_its_reference(
    folder: Path, tmp_path: Path
) -> None:
    path = put(
        tmp_path,
        {"prompt": "one", "reference": "eins"},
        {
            "id": "x",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "two"},
                {"role": "assistant", "content": "zwei"},
            ],
        },
        {
            "messages": [{"role": "user", "content": "three"}],
            "reference": "drei",
            "level": "easy",
            "answer": None,
        },
    )
    first, second, third = sft_rows_of(path, folder, None, 0)
    assert first == chat("p000001", "one", "eins")
    assert (second.row_id, [turn.role for turn in second.messages]) == ("x", ["system", "user", "assistant"])
    assert third == chat("p000003", "three", "drei")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q"}, "line 2: p000002 has no answer to train on"),
        ({"messages": [{"role": "user", "content": "q"}]}, "line 2: p000002 has no answer to train on"),
        (
            {
                "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                "reference": "a",
            },
            "line 2: it has an answer at the end of its turns and a reference as well",
        ),
        ({"prompt": "q", "reference": " "}, "line 2: reference is empty"),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]},
            "line 2: reference is empty",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}]},
            "line 2: the last message must be the user's, or the assistant's after it",
        ),
        (
            {"messages": [{"role": role, "content": role} for role in ("user", "user", "assistant")]},
            "line 2: p000002 has the turns user, user: after",
        ),
        (
            {"messages": [{"role": role, "content": role} for role in ("user", "assistant", "system")]},
            "line 2: the last message must be the user's, or the assistant's after it",
        ),
        ({"prompt": "q", "reference": "a", "choices": ["x", "y"]}, "line 2: p000002 has choices"),
        ({"prompt": "q", "reference": "a", "id": "first"}, "line 2: the prompt id first was used in line 1"),
        ({"prompt": "q", "target": "a"}, "line 2: unknown key target"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_named_with_its_line(
    row: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    path = put(tmp_path, {"id": "first", "prompt": "one", "reference": "eins"}, row)
    with pytest.raises(SpartaError) as error:
        sft_rows_of(path, folder, None, 0)
    assert f"{path}, {said}" in str(error.value)


def test_a_file_that_is_missing_or_empty_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="nowhere.jsonl cannot be read .*: check the sft.data"):
        sft_rows_of(str(tmp_path / "nowhere.jsonl"), folder, None, 0)
    with pytest.raises(SpartaError, match="has no row to train on"):
        sft_rows_of(put(tmp_path), folder, None, 0)
