"""A person's own prompt file: accepted formats, and refusals that name the line."""

import json
from pathlib import Path

import pytest
from support.scripted_run import write_recipe

from sparta.chat.template import Message
from sparta.commands.begin import gather
from sparta.errors import SpartaError
from sparta.recipes.load import load
from sparta.store.records import Instruction
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.benchmarks import normad
from sparta.tasks.prepared import Provenance


def gathered(folder: Path, text: str | bytes, **data: object) -> list[Instruction]:
    path = write_recipe(folder, data={"train": "prompts.jsonl", **data})
    content = text.encode() if isinstance(text, str) else text
    (folder / "prompts.jsonl").write_bytes(content)
    return gather(load(path))


def test_prompts_conversations_and_ids_are_understood(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "why?"},
    ]
    rows = [
        {"prompt": "one"},
        {"id": 7, "messages": turns},
        {"id": "x", "prompt": "two", "answer": 3, "reference": None},
    ]
    found = gathered(tmp_path, "\n\n".join(map(json.dumps, rows)))
    assert [row.prompt_id for row in found] == ["p000001", "7", "x"]
    assert found[0].messages == (Message("user", "one"),)
    assert [turn.role for turn in found[1].messages] == ["system", "user", "assistant", "user"]


def test_instructions_of_a_task_are_worded_as_a_combat_asks_them(tmp_path: Path) -> None:
    story = Item("story-1", (Message("user", f"A story.\n\n{normad.ONE_WORD}"),), answer="yes")
    none = Provenance("normad_country", "local", "CC BY 4.0", {}, {}, (), {})
    prepared.write(tmp_path, normad.COUNTRY, {"train": [story]}, none)
    recipe = load(write_recipe(tmp_path, data={"task": "normad_country", "folder": "."}))
    [found] = gather(recipe)
    assert found == Instruction("story-1", (Message("user", f"A story.\n\n{normad.REASON_FIRST}"),))


def test_size_takes_the_first(tmp_path: Path) -> None:
    assert [row.prompt_id for row in gathered(tmp_path, '{"prompt": "a"}\n{"prompt": "b"}\n', size=1)] == [
        "p000001"
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0c", "\x1e"])
def test_a_line_ends_with_a_newline_and_nothing_else(separator: str, tmp_path: Path) -> None:
    row = json.dumps({"prompt": f"a{separator}b"}, ensure_ascii=ord(separator) < 0x20)
    [found] = gathered(tmp_path, row)
    assert found.messages[0].content == f"a{separator}b"


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"prompt": "a"}\n', b'{"prompt": "a"}\r\n\r\n'])
def test_files_from_other_systems_are_understood(content: bytes, tmp_path: Path) -> None:
    assert [row.messages[0].content for row in gathered(tmp_path, content)] == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no instructions"),
        ("\n  \n", "has no instructions"),
        ('{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON"),
        ('{"prompt": "a"}\n\n["b"]\n', "line 3: expected an object, found list"),
        (
            '{"id": "x", "prompt": "a"}\n{"prompt": "b"}\n{"id": "x", "prompt": "c"}',
            "line 3: the prompt id x was used in line 1",
        ),
        ('{"prompt": ""}', "line 1: the prompt is empty"),
        ('{"prompt": "  "}', "line 1: the prompt is empty"),
        ('{"prompt": 5}', "line 1: the prompt is empty or no text"),
        ('{"prompt": null}', "line 1: the prompt is empty or no text"),
        ('{"promt": "a"}', "line 1: unknown key promt"),
        ('{"id": "x"}', "line 1: its columns are id, which is no form that is known (prompt or messages; "),
        ('{"prompt": "a", "messages": []}', "line 1: give either prompt or messages"),
        ('{"messages": []}', "line 1: the prompt is empty"),
        ('{"messages": [{"role": "user"}]}', "line 1: messages: turn 1 is no text"),
        (
            '{"messages": [{"role": "robot", "content": "a"}]}',
            "line 1: messages: turn 1 is of 'robot', none of system, user, ",
        ),
        (
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            "line 1: the last message must be the user's",
        ),
        ('{"id": "", "prompt": "a"}', "line 1: the id is neither text nor a whole number"),
        ('{"id": 1.5, "prompt": "a"}', "line 1: the id is neither text nor a whole number"),
        ('{"id": true, "prompt": "a"}', "line 1: the id is neither text nor a whole number"),
        ('{"prompt": "\\ud800"}', "line 1: "),
    ],
)
def test_a_bad_file_is_refused_with_the_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpartaError) as error:
        gathered(tmp_path, text)
    assert said in str(error.value)
    assert str(tmp_path / "prompts.jsonl") in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe{}"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path))
    path = tmp_path / "prompts.jsonl"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(SpartaError, match="prompts.jsonl cannot be read .* check data.train"):
        gather(recipe)


def test_every_key_of_an_item_may_stand_in_a_prompt_file(tmp_path: Path) -> None:
    row = {
        "prompt": "which?",
        "answer": "B",
        "choices": ["x", "y"],
        "right": ["B"],
        "reference": "y",
        "level": 2,
    }
    [found] = gathered(tmp_path, json.dumps(row))
    assert found.messages == (Message("user", "which?"),)


def test_prompts_that_are_graded_by_letter_list_their_choices(tmp_path: Path) -> None:
    row = {"prompt": "which?", "answer": "B", "choices": ["x", "y"]}
    [found] = gathered(tmp_path, json.dumps(row), grading="letter")
    assert found.messages == (Message("user", "which?\nA. x\nB. y"),)


def test_an_unknown_task_suggests_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="there is no task toys; did you mean toy?"):
        gather(load(write_recipe(tmp_path, data={"task": "toys"})))


def test_the_toy_task_gives_its_training_split(tmp_path: Path) -> None:
    found = gather(load(write_recipe(tmp_path, data={"task": "toy", "size": 20})))
    assert len({row.prompt_id for row in found}) == 20
