"""The task own: a person's files, what they may say, and how they are graded. Lines of the prompt file: see test_instructions.py."""

import json
from pathlib import Path

import pytest

from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks.base import Item, Split
from sparta.tasks.user_data.task import UserTask

CHOICES = ["red", "green", "blue"]


def own(folder: Path, grading: str = "exact", **files: list[dict]) -> UserTask:
    """The task of `files`: rows by split; train has a prompt of its own where none is given."""
    paths = {}
    for split, rows in {"train": [{"prompt": "a prompt to learn from"}], **files}.items():
        paths[split] = str(folder / f"{split}.jsonl")
        Path(paths[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return UserTask(Data(grading=grading, **paths))  # type: ignore[arg-type]


def items(task: UserTask, split: Split = "validation") -> list[Item]:
    return list(task.items(split, task.data))


def graded(folder: Path, grading: str, row: dict, text: str) -> dict[str, float]:
    task = own(folder, grading, validation=[{"prompt": "?", **row}])
    return task.grade(items(task)[0], text)


def test_everything_that_a_line_may_say_is_kept(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "prompt": "which?",
        "reference": "the second",
        "answer": "B",
        "choices": CHOICES,
        "right": ["A", "B"],
        "level": 3,
    }
    [item] = items(own(tmp_path, validation=[row]))
    assert (item.item_id, item.reference, item.answer, item.right, item.level) == (
        "7",
        "the second",
        "B",
        ("A", "B"),
        "3",
    )
    assert item.choices == {"A": "red", "B": "green", "C": "blue"}
    assert item.messages[0].content == "which?"


def test_choices_have_the_labels_that_they_are_given(tmp_path: Path) -> None:
    [item] = items(
        own(tmp_path, validation=[{"prompt": "?", "answer": "no", "choices": {"yes": 1, "no": 2.5}}])
    )
    assert item.choices == {"yes": "1", "no": "2.5"}


def test_each_split_is_its_own_file_in_its_own_order(tmp_path: Path) -> None:
    rows = {
        split: [{"prompt": f"{split} {n}", "answer": n} for n in range(3)]
        for split in ("train", "validation", "test")
    }
    task = own(tmp_path, **rows)
    for split in ("train", "validation", "test"):
        assert [item.messages[0].content for item in items(task, split)] == [f"{split} {n}" for n in range(3)]


# --- grading


@pytest.mark.parametrize(
    ("grading", "row", "text", "grade"),
    [
        ("exact", {"answer": "New York"}, "  New \n York\n", 1.0),
        ("exact", {"answer": "New York"}, "new york", 0.0),
        ("exact", {"answer": "New York"}, "New York City", 0.0),
        ("exact", {"answer": 5}, "5", 1.0),
        ("number", {"answer": "1,200"}, "That makes 1200 in all.", 1.0),
        ("number", {"answer": 5}, "Let me see: 5 + 2 = 7", 0.0),
        ("number", {"answer": 5}, "no idea", 0.0),
        ("math", {"answer": r"\frac{1}{2}"}, r"It is $\boxed{0.5}$.", 1.0),
        ("math", {"answer": r"\frac{1}{2}"}, r"It is $\boxed{2}$.", 0.0),
        ("letter", {"answer": "B", "choices": CHOICES}, "The answer is B.", 1.0),
        ("letter", {"answer": "B", "choices": CHOICES}, "A", 0.0),
        ("letter", {"answer": "B", "choices": CHOICES}, "I cannot tell.", 0.0),
        ("letter", {"answer": "B", "right": ["A", "B"], "choices": CHOICES}, "A", 1.0),
    ],
)
def test_answers_are_graded_as_the_recipe_says(
    grading: str, row: dict, text: str, grade: float, tmp_path: Path
) -> None:
    assert graded(tmp_path, grading, row, text) == {"accuracy": grade}


def test_of_choices_the_likeliest_counts(tmp_path: Path) -> None:
    row = {"prompt": "?", "answer": "B", "choices": CHOICES}
    task = own(tmp_path, "likelihood", validation=[row])
    [item] = items(task)
    assert task.likelihood
    assert item.messages[0].content == "?"
    assert task.score_likelihoods(item, {"A": -9.0, "B": -2.0, "C": -3.0}) == {"accuracy": 1.0}
    assert task.score_likelihoods(item, {"A": -1.0, "B": -2.0, "C": -3.0}) == {"accuracy": 0.0}


def test_a_judge_sees_the_reference_or_the_answer_in_its_place(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one?", "reference": "because"},
        {"prompt": "two?", "answer": "so"},
        {"prompt": "three?", "answer": "B", "choices": CHOICES},
    ]
    task = own(tmp_path, "judge", validation=rows)
    assert [item.reference for item in items(task)] == ["because", None, None]
    assert [task.posed(item).reference for item in items(task)] == ["because", "so", "green"]
    [metric] = task.metrics
    assert (metric.name, metric.top) == ("score", 10.0) and metric.rubric is not None
    assert task.grade(items(task)[0], "because") == {}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_letters_are_chosen_from_what_the_prompt_lists(split: Split, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
    row = {"messages": turns, "answer": "B", "choices": CHOICES}
    task = own(tmp_path, "letter", **{"validation": [{"prompt": "Which other?"}], split: [row]})
    [item] = items(task, split)
    assert item.messages[1].content == "Which?"
    first, last = task.posed(item).messages
    assert first.content == "Be brief."
    assert last.content == "Which?\nA. red\nB. green\nC. blue"


@pytest.mark.parametrize(
    ("grading", "row"),
    [
        *(
            (grading, {"reference": "five"})
            for grading in ("exact", "number", "math", "letter", "likelihood")
        ),
        ("number", {"answer": "five"}),
        ("letter", {"answer": "A"}),
        ("letter", {"answer": "y", "choices": {"x": "1", "y": "2"}}),
        ("likelihood", {"answer": "A"}),
    ],
)
def test_an_item_without_gold_for_a_grading_has_no_grade(grading: str, row: dict, tmp_path: Path) -> None:
    """Items were written down under another grading."""
    [item] = items(own(tmp_path, "judge", validation=[{"prompt": "?", **row}]))
    task = own(tmp_path, grading)
    assert task.grade(item, "5") == {}
    assert task.score_likelihoods(item, dict.fromkeys(item.choices, -1.0)) == {}


# --- what is refused


@pytest.mark.parametrize(
    ("grading", "row", "said"),
    [
        *(
            (grading, {"choices": CHOICES}, f"line 2: bad has no answer; data.grading is {grading}")
            for grading in ("exact", "number", "math", "letter", "likelihood")
        ),
        ("judge", {}, "line 2: bad has neither a reference nor an answer"),
        ("likelihood", {"answer": "A"}, "line 2: bad has no choices; data.grading is likelihood"),
        ("letter", {"answer": "A"}, "line 2: bad has no choices"),
        (
            "letter",
            {"answer": "x", "choices": {"x": "1", "y": "2"}},
            "line 2: bad has choices labelled x, y: give capital letters",
        ),
        ("number", {"answer": "five"}, "line 2: bad has the answer 'five', which is no number"),
        (
            "exact",
            {"answer": "D", "choices": CHOICES},
            "line 2: bad has the answer 'D', which is no label of its choices (A, B, C)",
        ),
        (
            "exact",
            {"answer": "red", "choices": CHOICES},
            "line 2: bad has the answer 'red', which is no label",
        ),
        (
            "exact",
            {"answer": "A", "choices": CHOICES, "right": ["A", "Z"]},
            "line 2: bad has 'Z' among the right ones",
        ),
        (
            "exact",
            {"answer": "A", "choices": CHOICES, "right": ["B"]},
            "line 2: bad has the answer 'A', which is not among the right",
        ),
        ("exact", {"answer": "A", "choices": CHOICES, "right": "A"}, "line 2: right is no list of labels"),
        ("exact", {"answer": ["a"]}, "line 2: answer is empty or neither a text nor a number"),
        ("exact", {"answer": True}, "line 2: answer is empty or neither a text nor a number"),
        ("exact", {"answer": ""}, "line 2: answer is empty or neither a text nor a number"),
        ("exact", {"answer": "a", "level": {}}, "line 2: level is empty or neither"),
        (
            "exact",
            {"answer": "a", "choices": "ab"},
            "line 2: choices are neither an object of label and text nor a list",
        ),
        ("exact", {"answer": "A", "choices": ["a"]}, "line 2: choices are neither"),
        ("exact", {"answer": "A", "choices": ["a", None]}, "line 2: choice 'B' has no text"),
        (
            "exact",
            {"answer": "A", "choices": {"A": "a", " ": "b"}},
            "line 2: choice ' ' has no text or no label",
        ),
        ("exact", {"answer": "A", "choices": list("a" * 27)}, "line 2: choices are more than 26"),
    ],
)
def test_a_line_that_cannot_be_graded_is_refused(grading: str, row: dict, said: str, tmp_path: Path) -> None:
    good = {"prompt": "good?", "answer": "A", "choices": CHOICES, "reference": "r"}
    if grading == "number":
        good = {"prompt": "good?", "answer": 1}
    task = own(tmp_path, grading, validation=[good, {"id": "bad", "prompt": "bad?", **row}])
    with pytest.raises(SpartaError) as error:
        items(task)
    assert said in str(error.value)
    assert str(tmp_path / "validation.jsonl") in str(error.value)
    assert "\n" not in str(error.value)


def test_instructions_need_no_answer(tmp_path: Path) -> None:
    task = own(tmp_path, "number", train=[{"prompt": "why?"}, {"prompt": "how?", "answer": "so"}])
    assert [item.answer for item in items(task, "train")] == [None, "so"]


def test_an_id_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "prompt": "a", "answer": "1"},
        {"prompt": "b", "answer": "1"},
        {"id": "x", "prompt": "c", "answer": "1"},
    ]
    with pytest.raises(
        SpartaError, match="validation.jsonl, line 3: the prompt id x was used in line 1 already"
    ):
        items(own(tmp_path, validation=rows))


@pytest.mark.parametrize(
    ("other", "split"),
    [("train", "validation"), ("test", "validation"), ("train", "test"), ("validation", "test")],
)
def test_files_that_share_an_item_are_refused(other: Split, split: Split, tmp_path: Path) -> None:
    files = {
        "train": [{"prompt": "t", "answer": "1"}],
        "validation": [{"prompt": "v", "answer": "1"}],
        "test": [{"prompt": "x", "answer": "1"}],
    }
    files[other].append({"prompt": "How  many?", "answer": "1"})
    files[split].insert(0, {"prompt": "how many? ", "answer": "2"})
    with pytest.raises(SpartaError) as error:
        items(own(tmp_path, **files), split)
    assert f"{split}.jsonl, line 1 asks the same as {tmp_path / other}.jsonl, line 2" in str(error.value)


def test_a_question_is_the_same_with_and_without_choices_and_another_with_other_choices(
    tmp_path: Path,
) -> None:
    bare = {"prompt": "Which is it?"}
    this = {**bare, "choices": ["this", "that"], "answer": "A"}
    other = {**bare, "choices": ["one", "two"], "answer": "B"}
    assert items(own(tmp_path, "letter", train=[other], validation=[this]))
    for train, validation in ((bare, this), (this, {**bare, "answer": "that"})):
        grading = "letter" if "choices" in validation else "exact"
        with pytest.raises(SpartaError, match="asks the same as"):
            items(own(tmp_path, grading, train=[train], validation=[validation]))


def test_a_split_without_a_file_says_which_key_names_it(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="the task own has no test split: set data.test to a file"):
        items(own(tmp_path, validation=[{"prompt": "v", "answer": "1"}]), "test")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpartaError,
        match="validation.jsonl has no instructions: at least one is needed, check data.validation",
    ):
        items(own(tmp_path, validation=[]))
