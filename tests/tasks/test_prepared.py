"""Prepared data: what is written is what is read, and nothing that cannot be graded or is asked twice is written."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.grading.rubrics import Rubric
from sparta.recipes.data import Data
from sparta.tasks import prepared
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.dataset import Dataset, LocalFile, Source, Splits
from sparta.tasks.prepared import Provenance, Read

SOURCE = Source({"train": LocalFile("train.jsonl")}, lambda rows: Splits())
TASK = Dataset(
    name="sums",
    title="Sums",
    metrics=(Metric("accuracy"), Metric("clarity", 10.0, Rubric("Is it clear?", reference=False))),
    chat_template=True,
    max_new_tokens=8,
    local=SOURCE,
    hub=None,
    licence="MIT",
    paper=(2, 1, 1),
)


def item(name: str, question: str = "", answer: str | None = "2", **rest: object) -> Item:
    return Item(name, (Message("user", question or f"what is {name}?"),), answer=answer, **rest)  # type: ignore[arg-type]


def source(**missing: str) -> Provenance:
    return Provenance(
        task="sums",
        source="local",
        licence="MIT",
        files={"train": Read(file="train.jsonl", sha256="0" * 64)},
        dropped={"too long": 3},
        notes=("a note",),
        missing=missing,  # type: ignore[arg-type]
    )


FULL: dict[Split, list[Item]] = {
    "train": [item("a", answer=None, reference="two"), item("b", level="easy")],
    "validation": [item("c", choices={"A": "1", "B": "2"}, answer="B", right=("A", "B"))],
    "test": [item("d", "Wie viel ist é\u2028?")],
}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    written = prepared.write(tmp_path, TASK, FULL, source())
    for split, items in FULL.items():
        assert prepared.read(tmp_path, "sums", split) == items
        assert written.splits[split].items == len(items)
        assert len((tmp_path / "sums" / f"{split}.jsonl").read_bytes().split(b"\n")) == len(items) + 1
    assert prepared.provenance(tmp_path, "sums") == written
    assert TASK.items("test", Data(task="sums", folder=str(tmp_path))) == FULL["test"]


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        prepared.write(tmp_path / folder, TASK, FULL, source())
    names = sorted(path.name for path in (tmp_path / "one" / "sums").iterdir())
    assert names == ["source.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    for name in names:
        assert (tmp_path / "one/sums" / name).read_bytes() == (tmp_path / "two/sums" / name).read_bytes()


@pytest.mark.parametrize("change", ["edited", "cut", "removed"])
def test_a_split_that_was_changed_since_is_not_read(change: str, tmp_path: Path) -> None:
    prepared.write(tmp_path, TASK, FULL, source())
    path = tmp_path / "sums" / "test.jsonl"
    if change == "removed":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"2"', b'"3"') if change == "edited" else data[:-2])
    with pytest.raises(SpartaError) as error:
        prepared.read(tmp_path, "sums", "test")
    assert str(error.value) == (
        f"{path} is missing or was changed since it was prepared: run python jobs/prepare_data.py sums --folder {tmp_path} again"
    )
    assert prepared.read(tmp_path, "sums", "train") == FULL["train"]


def test_what_is_not_prepared_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpartaError) as error:
        prepared.read(tmp_path, "sums", "train")
    assert str(error.value) == (
        f"the data of sums is not prepared in {tmp_path}: run python jobs/prepare_data.py sums --folder {tmp_path}"
    )
    monkeypatch.setattr(prepared, "DATASETS", tmp_path)
    with pytest.raises(SpartaError, match="run python jobs/prepare_data.py sums$"):
        prepared.read(prepared.folder_of(Data(task="sums")), "sums", "train")


def test_a_split_that_is_missing_says_why_and_what_to_get(tmp_path: Path) -> None:
    some: dict[Split, list[Item]] = {"test": FULL["test"]}
    prepared.write(tmp_path, TASK, some, source(train="put train.jsonl into a folder sums"))
    with pytest.raises(
        SpartaError, match="sums has no train split in .*: put train.jsonl into a folder sums; "
    ):
        prepared.read(tmp_path, "sums", "train")
    with pytest.raises(SpartaError, match="sums has no validation split in .*: its source has none"):
        prepared.read(tmp_path, "sums", "validation")


def test_a_split_of_an_earlier_time_does_not_survive(tmp_path: Path) -> None:
    prepared.write(tmp_path, TASK, FULL, source())
    prepared.write(tmp_path, TASK, {"test": FULL["test"]}, source())
    assert sorted(path.name for path in (tmp_path / "sums").iterdir()) == ["source.json", "test.jsonl"]
    with pytest.raises(SpartaError, match="sums has no train split"):
        prepared.read(tmp_path, "sums", "train")


def test_a_source_of_another_version_is_refused(tmp_path: Path) -> None:
    prepared.write(tmp_path, TASK, FULL, source())
    path = tmp_path / "sums" / "source.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(SpartaError, match="written by another version of this program: run python jobs"):
        prepared.read(tmp_path, "sums", "train")


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (
            {"train": [item("a"), item("b"), item("a", "else?")]},
            "sums, train: item a (line 3) has the id of line 1",
        ),
        ({"test": [item("a"), item("b", answer=None)]}, "sums, test: item b (line 2) has no answer"),
        ({"validation": [item("a", answer=" ")]}, "sums, validation: item a (line 1) has no answer"),
        (
            {"test": [item("a", answer="C", choices={"A": "1", "B": "2"})]},
            "item a (line 1) has the answer 'C', which is no label of its choices (A, B)",
        ),
        (
            {"train": [item("a", answer="A", choices={"A": "1", "B": "2"}, right=("A", "C"))]},
            "item a (line 1) has 'C' among the right ones, which is no label of its choices (A, B)",
        ),
        (
            {"test": [item("a", answer="A", choices={"A": "1", "B": "2"}, right=("B",))]},
            "item a (line 1) has the answer 'A', which is not among the right ones (B)",
        ),
        ({"test": [item("a", "half \ud800")]}, "item a (line 1) holds half a character"),
        (
            {"train": [item("a", "One  two\nthree?")], "test": [item("b", " one TWO three? ")]},
            "b of test asks the same as a of train",
        ),
        (
            {"validation": [item("a", "same?")], "test": [item("a", "same?")]},
            "a of test asks the same as a of validation",
        ),
    ],
)
def test_what_cannot_be_graded_or_is_asked_twice_is_not_written(
    splits: dict[Split, list[Item]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError) as error:
        prepared.write(tmp_path, TASK, splits, source())
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_choice_of_other_texts_is_another_item(tmp_path: Path) -> None:
    which = "which is right?"
    splits: dict[Split, list[Item]] = {
        "validation": [item("a", which, "A", choices={"A": "1", "B": "2"})],
        "test": [item("a", which, "A", choices={"A": "3", "B": "4"})],
    }
    assert set(prepared.write(tmp_path, TASK, splits, source()).splits) == {"validation", "test"}


def test_where_a_judge_gives_every_metric_no_answer_is_needed(tmp_path: Path) -> None:
    judged = replace(TASK, metrics=TASK.metrics[1:])
    prepared.write(tmp_path, judged, {"test": [item("a", answer=None)]}, source())
    assert len(prepared.read(tmp_path, "sums", "test")) == 1


@pytest.mark.parametrize("reference", [None, "", " \n"])
def test_where_a_judge_is_to_see_a_reference_there_must_be_one(reference: str | None, tmp_path: Path) -> None:
    judged = replace(TASK, metrics=(Metric("score", 10.0, Rubric("As good as the reference?")),))
    given = item("b", answer=None, reference=reference)
    with pytest.raises(
        SpartaError, match=r"sums, test: item b \(line 2\) has no reference, which the judge is to see"
    ):
        prepared.write(tmp_path, judged, {"test": [item("a", reference="two"), given]}, source())
    assert prepared.write(tmp_path, judged, {"train": [given]}, source()).splits["train"].items == 1


def test_where_likelihoods_are_weighed_there_must_be_choices(tmp_path: Path) -> None:
    weighed = replace(TASK, likelihood_scorer=lambda item, logs: {})
    with pytest.raises(SpartaError, match=r"item a \(line 1\) has no choices"):
        prepared.write(tmp_path, weighed, {"test": [item("a")]}, source())
