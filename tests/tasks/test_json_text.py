"""JSON as people write it: digits stay, and what has no meaning is refused with its line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks.json_text import DEEPEST, NotJson, parse_json
from sparta.tasks.raw_files import rows_of
from sparta.tasks.sft_data.load import sft_rows_of
from sparta.tasks.user_data.items import UserItems
from sparta.tasks.user_data.sources import UserSource
from sparta.tasks.user_data.task import UserTask

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 1]))
def test_what_is_json_is_read_as_json_is(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert parse_json(text) == json.loads(text)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_a_number_keeps_the_digits_that_were_typed(typed: str) -> None:
    number = parse_json(f'{{"x": {typed}}}')["x"]
    assert number == json.loads(typed)
    if not (isinstance(number, int) and number == 0):
        assert f"{number}" == str(number) == typed


REFUSED = {
    "NaN": ("{\n%s: NaN}", 2, "NaN is no number"),
    "Infinity": ("{%s: [1,\n\nInfinity]}", 3, "Infinity is no number"),
    "-Infinity": ("{%s: -Infinity}", 1, "-Infinity is no number"),
    "1e400": ("{%s:\n1e400}", 2, "the number 1e400 is too large"),
    "-1e400": ("{%s: -1e400}", 1, "the number -1e400 is too large"),
    "many digits": ("{%s: " + "9" * 5000 + "}", 1, "the number 99999999999999999999... is too large"),
    "a key twice": ('{"a": 1,\n%s: 2,\n"a": 3}', 3, "the key 'a' is there twice in one object"),
    "a key twice within": ('{%s: [{"b": 1,\n"b": 1}]}', 2, "the key 'b' is there twice in one object"),
    "a key twice, escaped": ('{"a\\u0062": 1, %s: 2,\n"\\u0061b": 3}', 2, "the key 'ab' is there twice"),
    "a thousand levels": ("{%s:\n" + "[" * 1000 + "]" * 1000 + "}", 2, "nested more than 100 levels deep"),
    "a hundred thousand": (
        "{%s:" + '{"a":' * 10**5 + "1" + "}" * 10**5 + "}",
        1,
        "nested more than 100 levels",
    ),
    "just too deep": ("{%s:" + "[" * DEEPEST + "]" * DEEPEST + "}", 1, "nested more than 100 levels deep"),
    "no JSON": ("{%s: 1,\n2}", 2, "not JSON (Expecting property name"),
}


@pytest.mark.parametrize(("text", "line", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_meaning_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(NotJson) as error:
        parse_json(text % '"prompt"')
    assert (error.value.line, said in str(error.value)) == (line, True), error.value


def test_what_only_looks_like_it_is_read() -> None:
    text = '{"a": "NaN, {\\"x\\": 1, \\"x\\": 2}, 1e400", "b": {"a": 1}, "c": [{"a": 1}, {"a": 2}]}'
    assert parse_json(text) == json.loads(text)
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("kind", REFUSED.keys())
@pytest.mark.parametrize("reader", ["prompts", "lessons", "rows", "table of rows"])
def test_every_reader_of_users_files_refuses_it_naming_file_and_line(
    reader: str, kind: str, tmp_path: Path
) -> None:
    text, line, said = REFUSED[kind]
    whole = reader == "table of rows"
    path = tmp_path / ("data.json" if whole else "data.jsonl")
    if whole:
        path.write_text("[\n" + text % '"prompt"' + "]")
        line += 1
    else:
        path.write_text(
            '{"prompt": "one", "reference": "two"}\n' + (text % '"prompt"').replace("\n", " ") + "\n"
        )
        line = 2
    with pytest.raises(SpartaError) as error:
        if reader == "prompts":
            list(UserItems(UserSource(path, str(path), "data.train")))
        elif reader == "lessons":
            sft_rows_of(str(path), tmp_path, None, 0)
        else:
            list(rows_of(path))
    assert said in str(error.value) and f"{path}, line {line}" in str(error.value)


@pytest.mark.parametrize(
    ("typed", "text", "right"),
    [
        ("0.00001", "The answer is 0.00001.", True),
        ("0.00001", "The answer is 5.", False),
        ("1e22", "10000000000000000000000", True),
        ("1e22", "22", False),
        ("1e22", "1", False),
        ("1E-3", "It is 0.001.", True),
        ('"2.5e1"', "It is 25.", True),
        ("1.50", "It is 1.5.", True),
        ("12345678901234567890.5", "12345678901234567890.5", True),
        ("12345678901234567890.5", "12345678901234567890", False),
    ],
)
@pytest.mark.parametrize("grading", ["number", "math"])
def test_answers_are_graded_by_the_digits_that_were_typed(
    grading: str, typed: str, text: str, right: bool, tmp_path: Path
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"prompt": "?", "answer": {typed}}}\n')
    (tmp_path / "train.jsonl").write_text('{"prompt": "!"}\n')
    data = Data(train=str(tmp_path / "train.jsonl"), validation=str(path), grading=grading)  # type: ignore[arg-type]
    task = UserTask(data)
    [item] = task.items("validation", data)
    assert item.answer == typed.strip('"')
    assert task.grade(item, text) == {"accuracy": float(right)}


def test_a_number_that_no_grader_reads_is_refused(tmp_path: Path) -> None:
    path, train = tmp_path / "items.jsonl", tmp_path / "train.jsonl"
    path.write_text('{"prompt": "?", "answer": 1e-300}\n')
    train.write_text('{"prompt": "!"}\n')
    data = Data(train=str(train), validation=str(path), grading="number")
    with pytest.raises(SpartaError, match="has the answer '1e-300', which is no number"):
        UserTask(data).items("validation", data)
