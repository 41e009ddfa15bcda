"""Raw rows: what files and the hub give, and what is refused with its place."""

import hashlib
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from sparta.errors import SpartaError
from sparta.tasks.dataset import HubSplit, LocalFile, Source, Splits
from sparta.tasks.raw_files import HubRaw, LocalRaw, rows_of


def source(optional: frozenset[str] = frozenset(), **files: LocalFile | HubSplit) -> Source:
    return Source(files, read=lambda rows: Splits(None, None, None, {}, ()), optional=optional)


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- files


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("x.jsonl", '{"a": 1}\n\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("x.jsonl", b'\xef\xbb\xbf{"a": "\xc3\xa9\xe2\x80\xa8b"}\r\n', [{"a": "é\u2028b"}]),
        ("x.jsonl", "", []),
        ("x.json", '[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        (
            "x.csv",
            'a,b\r\n1,"two\nlines, and a ""quote"""\r\n',
            [{"a": "1", "b": 'two\nlines, and a "quote"'}],
        ),
        ("x.csv", "\ufeffa,b\n1,\n", [{"a": "1", "b": ""}]),
        ("x.tsv", "a\tb\n1, 2\t3\n", [{"a": "1, 2", "b": "3"}]),
    ],
)
def test_rows_are_read_by_the_ending_of_the_file(
    name: str, content: str | bytes, rows: list[object], tmp_path: Path
) -> None:
    assert [row for _, row in rows_of(put(tmp_path / name, content))] == rows


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "a,b,a\n1,2,3\n")
    with pytest.raises(SpartaError, match=r"x\.csv, line 1: the column 'a' is there twice"):
        list(rows_of(path))


def test_rows_come_with_their_places(tmp_path: Path) -> None:
    def places(name: str, content: str, *parts: str) -> list[str]:
        path = put(tmp_path / name, content)
        return [place.removeprefix(f"{path}, ") for place, _ in rows_of(path, parts)]

    assert places("x.jsonl", '{"a": 1}\n\n{"a": 2}') == ["line 1", "line 3"]
    assert places("x.json", '[{"a": 1}, {"a": 2}]') == ["entry 1", "entry 2"]
    assert places("x.csv", 'a,b\n1,"2\n3"\n4,5\n') == ["line 3", "line 4"]
    assert places("x.json", '{"b": [{}], "a": [{}, {}]}', "a", "b") == [
        "a, entry 1",
        "a, entry 2",
        "b, entry 1",
    ]
    assert places("x.json", '{"a": {"7": {}}}', "a") == ["a, 7"]


def test_the_parts_of_an_object_are_its_rows_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path / "x.json", '\ufeff{"one": [{"a": 1}], "two": {"7": {"a": 2}}, "three": [3]}')
    raw = LocalRaw(source(x=LocalFile("x.json", parts=("two", "one"))), tmp_path)
    assert list(raw.rows("x")) == [{"id": "7", "a": 2}, {"a": 1}]
    for parts, said in (
        (("four",), "x.json, four: it is not there"),
        (("three",), "x.json, three, entry 1: expected an object, found int"),
        ((), "x.json, line 1: expected a list, found dict"),
    ):
        with pytest.raises(SpartaError, match=said):
            list(rows_of(path, parts))
    put(path, "[]")
    with pytest.raises(SpartaError, match="expected an object with one, found list"):
        list(rows_of(path, ("one",)))


def test_a_table_without_names_gets_them_and_has_no_quotation_marks_but_as_text(tmp_path: Path) -> None:
    path = put(tmp_path / "x.tsv", '"Is it so?\tyes\n"no", he said\t"no\n')
    raw = LocalRaw(source(x=LocalFile("x.tsv", columns=("question", "answer"))), tmp_path)
    assert list(raw.rows("x")) == [
        {"question": '"Is it so?', "answer": "yes"},
        {"question": '"no", he said', "answer": '"no'},
    ]
    put(path, "a\tb\nc\n")
    with pytest.raises(SpartaError, match="x.tsv, line 2: fewer columns than question, answer"):
        list(raw.rows("x"))


def test_the_row_that_was_given_last_is_known_until_there_are_no_more(tmp_path: Path) -> None:
    path = put(tmp_path / "x.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    raw = LocalRaw(source(x=LocalFile("x.jsonl")), tmp_path)
    given = raw.rows("x")
    assert (next(given), raw.current) == ({"a": 1}, (f"{path}, line 1", {"a": 1}))
    assert (next(given), raw.current) == ({"a": 2}, (f"{path}, line 3", {"a": 2}))
    assert next(given, None) is None and raw.current is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", '{"a": 1}\n\n{"a": \n', "x.jsonl, line 3: not JSON"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "x.jsonl, line 2: expected an object, found list"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "x.jsonl, line 2: not UTF-8"),
        ("x.json", '[{"a": 1},\n\n{"a": }]', "x.json, line 3: not JSON"),
        ("x.json", '[{"a": 1}, 3]', "x.json, entry 2: expected an object, found int"),
        ("x.csv", "a,b\n1,2\n3\n", "x.csv, line 3: fewer columns"),
        ("x.csv", "a,b\n1,2,3\n", "x.csv, line 2: more columns"),
        ("x.csv", 'a,b\n1,"2\n', "x.csv, line 2: unexpected end of data"),
        ("x.tsv", "a\tb\n1\n", "x.tsv, line 2: fewer columns"),
        ("x.xml", "<a/>", "x.xml is none of .jsonl, .json, .csv, .tsv"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(
    name: str, content: str | bytes, said: str, tmp_path: Path
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(SpartaError) as error:
        list(rows_of(path))
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_is_found_by_name_and_folder_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path / "deep" / "gsm8k" / "raw" / "train.jsonl", '{"a": 1}')
    put(tmp_path / "math" / "train.jsonl", '{"a": 2}')
    raw = LocalRaw(source(train=LocalFile("train.jsonl", within="gsm8k")), tmp_path)
    assert list(raw.rows("train")) == [{"a": 1}]
    assert raw.read["train"].file == "deep/gsm8k/raw/train.jsonl"
    assert raw.read["train"].sha256 == hashlib.sha256(b'{"a": 1}').hexdigest()
    for folder in ("deep/gsm8k", "deep/gsm8k/raw"):
        inside = LocalRaw(source(train=LocalFile("train.jsonl", within="gsm8k")), tmp_path / folder)
        assert list(inside.rows("train")) == [{"a": 1}]


def test_a_folder_above_does_not_stand_for_one_that_is_there_below(tmp_path: Path) -> None:
    put(tmp_path / "math" / "gsm8k" / "train.jsonl", '{"a": 1}')
    put(tmp_path / "math" / "math" / "train.jsonl", '{"a": 2}')
    raw = LocalRaw(source(train=LocalFile("train.jsonl", within="math")), tmp_path / "math")
    assert list(raw.rows("train")) == [{"a": 2}]


def test_two_files_of_one_name_are_refused_unless_they_are_equal(tmp_path: Path) -> None:
    one, two = put(tmp_path / "a" / "x.json", "[]"), put(tmp_path / "b" / "x.json", "[]")
    assert list(LocalRaw(source(x=LocalFile("x.json")), tmp_path).rows("x")) == []
    put(two, '[{"a": 1}]')
    with pytest.raises(SpartaError, match=f"{one} and {two} could both be x.json"):
        list(LocalRaw(source(x=LocalFile("x.json")), tmp_path).rows("x"))


def test_a_file_that_is_not_there_is_named_unless_it_is_optional(tmp_path: Path) -> None:
    put(tmp_path / "x.jsonl", "{}")
    wanted = LocalFile("x.jsonl", within="here", origin="github.com/a/b: c/y.jsonl, renamed")
    raw = LocalRaw(source(frozenset({"spare"}), x=wanted, spare=wanted), tmp_path)
    with pytest.raises(SpartaError) as error:
        list(raw.rows("x"))
    assert (
        f"{tmp_path} holds no here/x.jsonl (github.com/a/b: c/y.jsonl, renamed): copy the file there"
        in str(error.value)
    )
    assert list(raw.rows("spare")) == []
    assert raw.read == {}


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="--from .*nowhere is no folder"):
        LocalRaw(source(), tmp_path / "nowhere")


# --- the hub, in the form of a folder that load_dataset takes alike

CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: other
  data_files:
  - {split: test, path: other/test-*}
---
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set with two configs and two splits, and a cache of its own for what is loaded."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "numbers"
    put(folder / "README.md", CARD)
    for config, split, count in (("main", "train", 3), ("main", "test", 2), ("other", "test", 1)):
        rows = [{"question": f"{config} {split} {n}", "choices": {"text": ["a", "b"]}} for n in range(count)]
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return folder


LOCAL = source(train=LocalFile("train.jsonl", within="numbers"), test=LocalFile("test.jsonl"))


def from_hub(revisions: dict[str, str] | None = None, **splits: HubSplit) -> HubRaw:
    return HubRaw(source(**splits), revisions or {}, LOCAL)


def test_splits_and_configs_of_a_data_set_are_told_apart(repository: Path) -> None:
    raw = from_hub(
        train=HubSplit(str(repository), "main", "train", ""),
        test=HubSplit(str(repository), "main", "test", ""),
        other=HubSplit(str(repository), "other", "test", ""),
    )
    found = {key: [row["question"] for row in raw.rows(key)] for key in ("train", "test", "other")}
    assert found == {
        "train": ["main train 0", "main train 1", "main train 2"],
        "test": ["main test 0", "main test 1"],
        "other": ["other test 0"],
    }
    assert next(raw.rows("train"))["choices"] == {"text": ["a", "b"]}
    assert raw.read["test"].config == "main" and raw.read["test"].split == "test"
    next(raw.rows("test"))
    assert raw.current and raw.current[0] == f"{repository} (main, test), row 1"


def test_json_lines_without_a_card_are_loaded_too(repository: Path, tmp_path: Path) -> None:
    put(tmp_path / "plain" / "train.jsonl", '{"a": 1}\n{"a": 2}\n')
    put(tmp_path / "plain" / "test.jsonl", '{"a": 3}\n')
    raw = from_hub(test=HubSplit(str(tmp_path / "plain"), None, "test", ""))
    assert list(raw.rows("test")) == [{"a": 3}]


@pytest.mark.parametrize(("config", "split"), [("none", "test"), ("main", "dev")])
def test_a_split_that_is_not_there_is_named_with_the_way_out(
    config: str, split: str, repository: Path
) -> None:
    with pytest.raises(SpartaError) as error:
        list(from_hub(x=HubSplit(str(repository), config, split, "")).rows("x"))
    assert f"{repository} ({config}, {split}) could not be loaded from the hub" in str(error.value)
    assert "copy numbers/train.jsonl and test.jsonl into a folder and add --from" in str(error.value)
    assert "\n" not in str(error.value)


class Hub:
    """Stands for the hub's interface: the commit of any data set is `commit`, or the network is down."""

    def __init__(self, commit: str | None) -> None:
        self.commit = commit
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self) -> "Hub":
        return self

    def dataset_info(self, name: str, revision: str | None = None, timeout: float | None = None) -> object:
        self.asked.append((name, revision))
        if self.commit is None:
            raise ConnectionError("no network\nat all")
        return huggingface_hub.hf_api.DatasetInfo(id=name, sha=self.commit)


ONLINE, OLD = "a" * 40, "b" * 40


@pytest.fixture
def loads(repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Revisions that load_dataset was asked for; it answers with the folder in place of the data set org/numbers."""
    asked: list[str] = []
    real = datasets.load_dataset

    def load(path: str, name: str, split: str, revision: str) -> datasets.Dataset:
        assert path == "org/numbers"
        asked.append(revision)
        loaded = real(str(repository), name=name, split=split)
        # Without the files of the cache, which has no commits of a folder.
        return datasets.Dataset.from_list(list(loaded))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


@pytest.mark.parametrize(
    ("pinned", "recorded", "taken"), [("", {}, ONLINE), ("", {"org/numbers": OLD}, OLD), (OLD, {}, OLD)]
)
def test_a_revision_that_is_not_pinned_is_that_of_the_last_time_or_the_present_one(
    pinned: str, recorded: dict[str, str], taken: str, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(ONLINE if taken == ONLINE else OLD)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    raw = from_hub(
        recorded, **{split: HubSplit("org/numbers", "main", split, pinned) for split in ("train", "test")}
    )
    assert len(list(raw.rows("train"))) == 3 and len(list(raw.rows("test"))) == 2
    assert loads == [taken, taken]
    assert {read.revision for read in raw.read.values()} == {taken}


def test_a_hub_out_of_reach_is_said_with_the_data_set_and_the_files_that_serve_as_well(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub(None))
    with pytest.raises(SpartaError) as error:
        list(from_hub(x=HubSplit("org/numbers", "main", "test", OLD)).rows("x"))
    assert str(error.value) == (
        "org/numbers (main, test) could not be loaded from the hub (no network): try again where the hub can be reached, or copy "
        "numbers/train.jsonl and test.jsonl into a folder and add --from FOLDER"
    )


def test_offline_the_hub_is_not_asked(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub = Hub(ONLINE)
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    assert len(list(from_hub(x=HubSplit("org/numbers", "main", "test", OLD)).rows("x"))) == 2
    with pytest.raises(SpartaError, match="HF_HUB_OFFLINE is set, and which revision to take is not known"):
        list(from_hub(x=HubSplit("org/numbers", "main", "test", "")).rows("x"))
    assert hub.asked == [] and loads == [OLD]


@pytest.mark.parametrize("kept", [OLD, ONLINE])
def test_the_cache_serves_offline_but_not_with_another_revision(
    kept: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # load_dataset's own fall-back, on a cache such as it leaves: <owner>___<name>/<config>/<version>/<commit>.
    datasets.load_dataset(str(repository), name="main", split="test")
    [loaded] = (tmp_path / "cache").glob("numbers/*/0.0.0/*/")
    shutil.copytree(loaded, tmp_path / "cache" / "org___numbers" / "main" / "0.0.0" / kept)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    raw = from_hub(x=HubSplit("org/numbers", "main", "test", OLD))
    if kept == OLD:
        assert len(list(raw.rows("x"))) == 2
        return
    with pytest.raises(
        SpartaError, match=f"the cache holds revision {ONLINE} and the hub was not asked for {OLD}"
    ):
        list(raw.rows("x"))


def test_a_folder_that_happens_to_be_called_like_a_data_set_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "numbers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpartaError, match="a folder org/numbers is in the working directory"):
        list(from_hub(x=HubSplit("org/numbers", None, "test", OLD)).rows("x"))
