"""jobs/prepare_data.py: tasks prepared from files or the hub, what is missing said, and examples shown."""

import json
import re
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from rich.console import Console
from support.scripted_run import ROOT, sentence, typed

from sparta.chat.template import Message
from sparta.commands import prepare_data
from sparta.errors import SpartaError
from sparta.screen import Screen
from sparta.tasks import prepare, prepared, registry
from sparta.tasks.base import Item, Metric
from sparta.tasks.dataset import Dataset, HubSplit, LocalFile, Rows, Source, Splits
from sparta.tasks.prepare import Origin

DATA = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets' files are not on this machine")

FILES = {name: LocalFile(f"{name}.jsonl", "sums") for name in ("train", "test")}


def read(rows: Rows) -> Splits:
    def items(key: str) -> tuple[Item, ...]:
        return tuple(
            Item(f"{key}-{n}", (Message("user", row["question"]),), answer=row["answer"], level="easy")
            for n, row in enumerate(rows(key))
        )

    test = items("test")
    return Splits(items("train") or None, test[:1], test[1:], {"test: too long": 2}, ("a note",))


def on_hub(dataset: str, revision: str = "") -> Source:
    return Source({split: HubSplit(dataset, "main", split, revision) for split in FILES}, read)


SUMS = Dataset(
    name="sums",
    title="Sums",
    metrics=(Metric("accuracy"),),
    chat_template=True,
    max_new_tokens=8,
    local=Source(FILES, read, frozenset({"train"})),
    hub=None,
    licence="MIT",
    paper=(1200, 1, 2),
    missing={"train": "write your own"},
)


def put(folder: Path, split: str, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ({"question": f"{split} {n}?", "answer": str(n)} for n in range(count))
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(width=120, record=True, highlight=False))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks are sums, its twin without files, and toy."""
    twin = replace(SUMS, name="twin", local=Source({"test": LocalFile("none.json")}, read))
    tasks = {"sums": SUMS, "twin": twin, "toy": registry.TASKS["toy"]}
    monkeypatch.setattr(prepare_data, "TASKS", tasks)
    monkeypatch.setattr(registry, "TASKS", tasks)


def test_splits_and_where_they_come_from_are_written(tmp_path: Path) -> None:
    put(tmp_path / "from" / "sums", "train", 3)
    put(tmp_path / "from" / "sums", "test", 4)
    prepare.prepare(SUMS, Origin(tmp_path / "from"), tmp_path / "to")
    assert [len(prepared.read(tmp_path / "to", "sums", split)) for split in prepared.SPLITS] == [3, 1, 3]
    source = prepared.provenance(tmp_path / "to", "sums")
    assert source is not None
    assert (source.source, source.licence, source.dropped, source.notes) == (
        "local",
        "MIT",
        {"test: too long": 2},
        ("a note",),
    )
    assert {key: file.file for key, file in source.files.items()} == {
        "train": "sums/train.jsonl",
        "test": "sums/test.jsonl",
    }


def test_a_split_whose_file_is_missing_is_said_and_the_others_are_there(
    tmp_path: Path, screen: Screen
) -> None:
    put(tmp_path / "sums", "test", 3)
    done = prepare_data.prepare_all([SUMS], Origin(tmp_path), tmp_path / "to", screen)
    prepare_data.report(done, tmp_path / "to", screen)
    said = screen.console.export_text()
    [row] = [line.split() for line in said.splitlines() if line.strip().startswith("sums ")]
    assert " ".join(row) == "sums – 1 2 1,200 / 1 / 2 train"
    for remark in ("train is missing: write your own", "2 dropped: test: too long", "a note"):
        assert f"\nsums: {remark}\n" in said
    with pytest.raises(SpartaError, match="sums has no train split in .*: write your own"):
        prepared.read(tmp_path / "to", "sums", "train")


@pytest.mark.usefixtures("known")
def test_one_that_cannot_be_prepared_does_not_stop_the_others(tmp_path: Path, screen: Screen) -> None:
    put(tmp_path / "sums", "test", 3)
    both = prepare_data.datasets_named(["twin", "all", "sums"])
    assert [dataset.name for dataset in both] == ["twin", "sums"]
    done = prepare_data.prepare_all(both, Origin(tmp_path), tmp_path / "to", screen)
    with pytest.raises(SpartaError, match="twin could not be prepared: .* holds no none.json"):
        prepare_data.report(done, tmp_path / "to", screen)
    assert len(prepared.read(tmp_path / "to", "sums", "test")) == 2
    assert re.search("twin +– +– +– +1,200 / 1 / 2 +all", screen.console.export_text())


def test_a_source_with_nothing_in_it_is_no_success(tmp_path: Path) -> None:
    put(tmp_path / "sums", "test", 0)
    with pytest.raises(SpartaError, match="^nothing was found to make a split of: write your own"):
        prepare.prepare(SUMS, Origin(tmp_path), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_data_set_that_is_on_no_hub_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        SpartaError,
        match="sums is on no hub: add --from FOLDER, with sums/train.jsonl, sums/test.jsonl below it",
    ):
        prepare.prepare(SUMS, Origin(), tmp_path)


def test_the_hub_is_taken_where_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    put(tmp_path / "hub" / "main", "train", 2)
    put(tmp_path / "hub" / "main", "test", 3)
    card = "".join(f"  - {{split: {split}, path: main/{split}.jsonl}}\n" for split in FILES)
    (tmp_path / "hub" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: main\n  data_files:\n{card}---\n"
    )
    dataset = replace(SUMS, hub=on_hub(str(tmp_path / "hub")))
    source = prepare.prepare(dataset, Origin(), tmp_path / "to")
    assert source.source == "hub"
    assert {key: (file.config, file.split) for key, file in source.files.items()} == {
        "train": ("main", "train"),
        "test": ("main", "test"),
    }
    assert [len(prepared.read(tmp_path / "to", "sums", split)) for split in prepared.SPLITS] == [2, 1, 2]


def test_the_revision_of_the_last_time_is_taken_until_an_update_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = {"now": "a" * 40}
    loaded: list[str] = []

    class Api:
        def dataset_info(self, name: str, revision: str | None, timeout: float) -> object:
            return huggingface_hub.hf_api.DatasetInfo(id=name, sha=revision or hub["now"])

    def load(path: str, *, revision: str, **rest: str) -> datasets.Dataset:
        loaded.append(revision)
        return datasets.Dataset.from_list(
            [{"question": f"{rest['split']} {n}?", "answer": "1"} for n in range(3)]
        )

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = replace(SUMS, hub=on_hub("org/sums"))
    for update, now, taken in ((False, "a", "a"), (False, "b", "a"), (True, "b", "b"), (False, "c", "b")):
        hub["now"], loaded[:] = now * 40, []
        source = prepare.prepare(dataset, Origin(update=update), tmp_path)
        assert set(loaded) == {taken * 40}
        assert {file.revision for file in source.files.values()} == {taken * 40}


@pytest.mark.usefixtures("known")
def test_examples_are_shown_as_they_are_asked_with_what_is_right(tmp_path: Path, screen: Screen) -> None:
    put(tmp_path / "sums", "test", 9)
    prepare.prepare(SUMS, Origin(tmp_path), tmp_path / "to")
    prepare_data.show(["sums"], 2, tmp_path / "to", screen)
    said = screen.console.export_text()
    assert said.count("=== sums") == 3
    assert "=== sums validation test-0, easy\n[user] test 0?\n[answer] 0\n" in said
    assert "=== sums test test-2, easy\n[user] test 2?\n[answer] 2\n" in said


@pytest.mark.usefixtures("known")
def test_what_is_prepared_is_shown_beside_what_is_not(tmp_path: Path, screen: Screen) -> None:
    put(tmp_path / "sums", "test", 3)
    prepare.prepare(SUMS, Origin(tmp_path), tmp_path / "to")
    with pytest.raises(SpartaError, match="^twin could not be shown: the data of twin is not prepared in"):
        prepare_data.show(["twin", "sums"], 1, tmp_path / "to", screen)
    assert screen.console.export_text().count("=== sums") == 2


@pytest.mark.usefixtures("known")
def test_a_row_that_cannot_be_used_stops_its_data_set_alone(tmp_path: Path, screen: Screen) -> None:
    put(tmp_path / "sums", "test", 3)
    (tmp_path / "none.json").write_text('[{"question": "0?", "answer": "0"}, {"question": "1?"}]')
    done = prepare_data.prepare_all(
        prepare_data.datasets_named(["twin", "sums"]), Origin(tmp_path), tmp_path / "to", screen
    )
    with pytest.raises(SpartaError) as error:
        prepare_data.report(done, tmp_path / "to", screen)
    assert str(error.value) == (
        f"twin could not be prepared: {tmp_path / 'none.json'}, entry 2: it has no 'answer', but question; take the row out, or get the file again"
    )
    assert len(prepared.read(tmp_path / "to", "sums", "test")) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm8", "there is no task gsm8; did you mean gsm8k?"),
        ("toy", "the task toy generates its items and needs no preparation"),
        ("own", "the task own needs no preparation"),
        ("code_alpacca", "there is no task or subset code_alpacca; did you mean code_alpaca?"),
    ],
)
def test_what_is_no_data_set_is_refused(name: str, said: str, tmp_path: Path) -> None:
    assert said in sentence(typed("prepare_data", name, "--folder", tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = typed("prepare_data", "gsm8k", "--from", tmp_path / "nowhere", "--folder", tmp_path / "to")
    assert f"--from {tmp_path / 'nowhere'} is no folder" in sentence(done)


@pytest.mark.parametrize("option", ["--single", "--update"])
def test_what_is_about_the_hub_does_not_go_with_files(option: str, tmp_path: Path) -> None:
    done = typed("prepare_data", "lima", option, "--from", tmp_path, "--folder", tmp_path / "to")
    assert done.returncode == 2 and "apply to the hub only: leave them or --from out" in done.stderr


def test_what_is_not_prepared_cannot_be_shown(tmp_path: Path) -> None:
    done = typed("prepare_data", "gsm8k", "--show", 1, "--folder", tmp_path)
    assert f"the data of gsm8k is not prepared in {tmp_path}: run python jobs/prepare_data.py" in sentence(
        done
    )


@real
def test_the_command_prepares_a_data_set_of_the_paper_and_shows_it(tmp_path: Path) -> None:
    done = typed("prepare_data", "gsm8k", "--from", DATA, "--folder", tmp_path / "to")
    assert done.returncode == 0, done.stderr
    assert "gsm8k" in done.stdout and "7,473 / 660 / 659" in done.stdout
    shown = typed("prepare_data", "gsm8k", "--folder", tmp_path / "to", "--show", 1)
    assert shown.stdout.count("=== gsm8k") == 3 and shown.stdout.count("[answer]") == 3
    assert str(DATA) not in (tmp_path / "to" / "gsm8k" / "source.json").read_text()


@real
def test_the_command_prepares_what_experts_learn_from_after_the_tasks_and_shows_it(tmp_path: Path) -> None:
    # Named first, prepared last: what gsm8k is scored on is kept out of it.
    done = typed("prepare_data", "cot", "gsm8k", "--from", DATA, "--folder", tmp_path / "to")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("[1/2] gsm8k") < done.stdout.index("[2/2] cot")
    assert re.search(r"cot +1,994 +sft_cot/raw/aqua_train.first285.tsv and 6 more", done.stdout)
    assert "cot: 1 dropped: rows that ask what validation or test asks" in done.stdout
    assert "kept clear of validation and test of gsm8k" in done.stdout
    shown = typed("prepare_data", "cot", "--folder", tmp_path / "to", "--show", 2)
    assert shown.stdout.count("=== cot aqua.first285-") == 2
    assert shown.stdout.count("[user] ") == shown.stdout.count("[assistant] ") == 2
    assert str(DATA) not in (tmp_path / "to" / "cot" / "source.json").read_text()


@real
def test_subsets_are_the_ten_and_those_whose_files_are_missing_are_named(tmp_path: Path) -> None:
    done = typed("prepare_data", "subsets", "--from", DATA, "--folder", tmp_path / "to")
    assert "[10/10] gemini_alpaca" in done.stdout and "Table 4" not in done.stdout
    assert "no task is prepared here: prepare tasks before subsets" in done.stdout
    said = sentence(done)
    assert said.startswith("7 of 10 could not be prepared:")
    assert (
        f"lima: {DATA} holds none of its files: copy lima_data.jsonl (rows with messages, as those of allenai/"
        in said
    )
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"cot", "code_alpaca", "science"}


def test_a_subset_that_is_not_prepared_cannot_be_shown(tmp_path: Path) -> None:
    said = sentence(typed("prepare_data", "lima", "--show", 1, "--folder", tmp_path))
    assert f"the data of lima is not prepared in {tmp_path}: run python jobs/prepare_data.py lima" in said
