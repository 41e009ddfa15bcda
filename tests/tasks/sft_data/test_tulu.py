"""The ten subsets: the rows of their publishers in one form, and the real samples."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.real_data import RAW, needs_raw_data

from sparta.errors import SpartaError
from sparta.tasks import prepare as preparing
from sparta.tasks import prepared
from sparta.tasks.dataset import HubSplit, LocalFile
from sparta.tasks.prepare import Origin
from sparta.tasks.sft_data import formats
from sparta.tasks.sft_data.formats import Form
from sparta.tasks.sft_data.tulu import DOLLY, MIXTURE, REVISION, SFT_DATA, SUBSETS, Subset


def turns(form: Form, *rows: dict[str, Any]) -> list[list[tuple[str, str | None]]]:
    return list(form(iter(rows)))


@pytest.mark.parametrize(
    ("form", "row", "asked", "answered"),
    [
        (formats.messages, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "a", "b"),
        (formats.conversations, {"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a", "b"),
        (formats.alternating, {"conversations": ["a", "b"], "source": "stackexchange"}, "a", "b"),
        (formats.ALPACA, {"instruction": "Add. ", "input": " 1, 2", "output": "3\n"}, "Add.\n\n1, 2", "3"),
        (formats.ALPACA, {"instruction": "Sing.", "input": "", "output": "La"}, "Sing.", "La"),
        (formats.DOLLY, {"instruction": "When?", "context": "In May.", "response": "May", "category": "qa"}, "When?\n\nIn May.", "May"),
        (
            formats.reasoned,
            {"question": "Which?\\nOptions:\\n(A) one", "answer": "(A)", "rationale": "As one is first."},
            "Which?\nOptions:\n(A) one",
            "As one is first.\nSo the answer is (A).",
        ),
        (
            formats.judged,
            {"question": "Is it so?", "choices": {"A": "Support", "B": "Contradict"}, "answer": "B", "id": "1"},
            "Is it so?\nA. Support\nB. Contradict",
            "B. Contradict",
        ),
        (
            formats.read_up,
            {"question": "Question: Who?", "answer": "Unanswerable", "id": 1, "context_chunks": ["One. ", "Two."]},
            "One.\n\nTwo.\n\nQuestion: Who?",
            "Unanswerable",
        ),
    ],
)  # fmt: skip
def test_each_form_is_turned_into_a_question_and_an_answer(
    form: Form, row: dict[str, Any], asked: str, answered: str
) -> None:
    [[(one, question), (other, answer)]] = turns(form, row)
    assert (one in ("user", "human"), question) == (True, asked)
    assert (other in ("assistant", "gpt"), answer) == (True, answered)


def test_a_rationale_or_an_answer_that_is_missing_is_no_answer() -> None:
    for row in (
        {"question": "a", "answer": "", "rationale": "c"},
        {"question": "a", "answer": "b", "rationale": ""},
    ):
        assert turns(formats.reasoned, row) == [[("user", "a"), ("assistant", None)]]


def test_of_a_tree_the_path_of_the_best_ranked_replies_is_taken() -> None:
    def message(name: str, parent: str | None, role: str, rank: int | None) -> dict[str, Any]:
        return {"message_id": name, "parent_id": parent, "role": role, "text": name.upper(), "rank": rank}

    rows = [
        message("a", None, "prompter", None),
        message("h", "a", "assistant", None),
        message("b", "a", "assistant", 1),
        message("c", "a", "assistant", 0),
        message("d", "c", "prompter", None),
        message("e", "c", "prompter", None),
        message("f", "d", "assistant", 0),
        message("g", None, "prompter", None),
    ]
    assert turns(formats.best_path, *rows) == [
        [("prompter", "A"), ("assistant", "C"), ("prompter", "D"), ("assistant", "F")],
        [("prompter", "G")],
    ]
    with pytest.raises(ValueError, match="it has no 'rank', but message_id, parent_id, role, text"):
        turns(formats.best_path, {"message_id": "x", "parent_id": None, "role": "prompter", "text": "y"})


def test_the_paper_has_ten_and_all_of_them_are_in_the_mixture_at_one_revision() -> None:
    assert len(SUBSETS) == 10 and not set(SUBSETS) & {DOLLY.name}
    for subset in SUBSETS.values():
        [split] = subset.hub.files.values()
        assert isinstance(split, HubSplit)
        assert (split.dataset, split.split, split.revision, split.column) == (
            MIXTURE,
            "train",
            REVISION,
            "dataset",
        )
    wanted = {
        split.only
        for subset in SUBSETS.values()
        for split in subset.hub.files.values()
        if isinstance(split, HubSplit)
    }
    assert wanted == set(SUBSETS) - {"gemini_alpaca"} | {"gpt4_alpaca"}


def test_every_subset_can_be_made_from_a_file_of_messages() -> None:
    for subset in SFT_DATA.values():
        described = [file for file in subset.local.files.values() if isinstance(file, LocalFile)]
        assert all(file.origin for file in described)
        if subset is not DOLLY:
            assert f"{subset.name}_data.jsonl" in [file.name for file in described]


def put(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows) if name.endswith(".jsonl") else json.dumps(rows)
    (folder / name).write_text(text)


def spoken(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def prepare(subset: Subset, folder: Path) -> list[tuple[str, ...]]:
    preparing.prepare(subset, Origin(folder / "from"), folder / "to")
    return [
        tuple(turn.content for turn in chat.messages)
        for chat in prepared.read_chats(folder / "to", subset.name)
    ]


def test_a_whole_file_is_taken_before_a_part_and_messages_before_both(tmp_path: Path) -> None:
    subset = SUBSETS["code_alpaca"]
    for name, answer in (
        ("code_alpaca_2k.json", "2k"),
        ("code_alpaca_20k.json", "20k"),
        ("code_alpaca_data.jsonl", "messages"),
    ):
        row = (
            {"instruction": "q", "input": "", "output": answer}
            if answer != "messages"
            else spoken("q", answer)
        )
        put(tmp_path / "from", name, [row])
        assert prepare(subset, tmp_path) == [("q", answer)]
        source = prepared.provenance(tmp_path / "to", "code_alpaca")
        assert source is not None and any("small file" in note for note in source.notes) == (answer == "2k")


def test_gemini_alpaca_is_one_s_own_or_a_stand_in_and_says_so(tmp_path: Path) -> None:
    subset = SUBSETS["gemini_alpaca"]
    for name, stands_in in (("gpt4_alpaca_data.jsonl", True), ("gemini_alpaca_data.jsonl", False)):
        put(tmp_path / "from", name, [spoken("q", name)])
        assert prepare(subset, tmp_path) == [("q", name)]
        source = prepared.provenance(tmp_path / "to", "gemini_alpaca")
        assert source is not None and any("stand-in" in note for note in source.notes) == stands_in


def test_a_subset_without_a_row_to_learn_from_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "from", "lima_data.jsonl", [{"messages": [{"role": "user", "content": "q"}]}])
    with pytest.raises(SpartaError, match=r"no row is left to train on \(1 rows without an answer\)"):
        prepare(SUBSETS["lima"], tmp_path)
    put(tmp_path / "from", "lima_data.jsonl", [])
    with pytest.raises(SpartaError, match="no row is left to train on .there is none."):
        prepare(SUBSETS["lima"], tmp_path)
    with pytest.raises(SpartaError, match="holds none of its files: copy open_orca_data.jsonl"):
        prepare(SUBSETS["open_orca"], tmp_path)
    assert not (tmp_path / "to" / "lima").exists()


def test_a_row_of_another_form_is_refused_with_its_place(tmp_path: Path) -> None:
    put(
        tmp_path / "from",
        "lima_data.jsonl",
        [spoken("q", "a"), {"messages": [{"role": "tool", "content": "x"}]}],
    )
    with pytest.raises(SpartaError, match="lima_data.jsonl, line 2: a turn is of 'tool', none of system"):
        prepare(SUBSETS["lima"], tmp_path)
    put(tmp_path / "from", "lima_data.jsonl", [spoken("q", "a"), {"text": "x"}])
    with pytest.raises(SpartaError, match="lima_data.jsonl, line 2: it has no 'messages', but text"):
        prepare(SUBSETS["lima"], tmp_path)


# --- the mixture, as a folder that load_dataset takes like the hub's

PARTS = (
    "flan_v2",
    "science.scifact_json",
    "lima",
    "science.qasper_truncated_4000",
    "hard_coded",
    "gpt4_alpaca",
    "flan_v2",
)


@pytest.fixture
def mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"dataset": part, "id": f"{part}_{number}", **spoken(f"{part}, question {number}", "An answer.")}
        for number, part in enumerate(PARTS)
    ]
    put(tmp_path / "mixture", "train.jsonl", rows)
    yield tmp_path / "mixture"


def of(folder: Path, name: str) -> Subset:
    """The subset, its hub's repository being `folder`."""
    from dataclasses import replace

    subset = SUBSETS[name]
    files = {key: replace(split, dataset=str(folder), revision="") for key, split in subset.hub.files.items()}
    return replace(subset, hub=replace(subset.hub, files=files))


@pytest.mark.parametrize(
    ("name", "places"), [("flan_v2", (0, 6)), ("science", (1, 3)), ("lima", (2,)), ("gemini_alpaca", (5,))]
)
def test_a_subset_is_its_part_of_the_mixture(
    name: str, places: tuple[int, ...], mixture: Path, tmp_path: Path
) -> None:
    source = preparing.prepare(of(mixture, name), Origin(), tmp_path / "to")
    chats = prepared.read_chats(tmp_path / "to", name)
    assert [chat.messages[0].content for chat in chats] == [f"{PARTS[n]}, question {n}" for n in places]
    [read] = source.files.values()
    assert (read.dataset, read.split, read.only) == (
        str(mixture),
        "train",
        "gpt4_alpaca" if name == "gemini_alpaca" else name,
    )


def test_a_row_of_the_mixture_is_named_by_its_place_in_it(mixture: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (mixture / "train.jsonl").read_text().splitlines()]
    rows[3]["messages"][0]["role"] = "crowd"
    put(mixture, "train.jsonl", rows)
    with pytest.raises(SpartaError, match=r"mixture \(train, science\), row 4: a turn is of 'crowd'"):
        preparing.prepare(of(mixture, "science"), Origin(), tmp_path / "to")


def test_a_subset_that_the_mixture_has_no_rows_of_is_an_error(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="no row is left to train on"):
        preparing.prepare(of(mixture, "open_orca"), Origin(), tmp_path / "to")


def test_a_mixture_without_the_column_says_so(mixture: Path, tmp_path: Path) -> None:
    put(mixture, "train.jsonl", [spoken("q", "a")])
    with pytest.raises(SpartaError, match="has no column dataset, but messages"):
        preparing.prepare(of(mixture, "lima"), Origin(), tmp_path / "to")


def test_a_subset_without_a_repository_of_its_own_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        SpartaError, match="flan_v2 has no repository of its own in a known form: leave --single out"
    ):
        preparing.prepare(SUBSETS["flan_v2"], Origin(single=True), tmp_path)


# --- the samples of the real ones


@needs_raw_data
@pytest.mark.parametrize(
    ("name", "rows", "dropped"),
    [("code_alpaca", 2015, 2), ("cot", 1995, 0), ("science", 932, 0), ("dolly", 2994, 2)],
)
def test_the_real_samples_are_prepared(name: str, rows: int, dropped: int, tmp_path: Path) -> None:
    source = preparing.prepare(SFT_DATA[name], Origin(RAW), tmp_path)
    chats = prepared.read_chats(tmp_path, name)
    assert (len(chats), sum(source.dropped.values())) == (rows, dropped)
    assert len({chat.row_id for chat in chats}) == rows
    assert all(chat.messages[-1].role == "assistant" and chat.messages[0].role == "user" for chat in chats)


@needs_raw_data
def test_the_rationales_of_the_real_table_come_before_the_answers(tmp_path: Path) -> None:
    preparing.prepare(SFT_DATA["cot"], Origin(RAW), tmp_path)
    by_id = {chat.row_id: chat for chat in prepared.read_chats(tmp_path, "cot")}
    path = RAW / "sft_cot" / "raw" / "aqua_train.first285.tsv"
    with path.open(newline="") as file:
        table = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    question, answer, rationale = (text.replace("\\n", "\n") for text in table[3])
    asked, answered = by_id["aqua.first285-3"].messages
    assert asked.content == question.strip() and "\nOptions:\n(A)" in asked.content
    assert answered.content == f"{rationale.strip()}\nSo the answer is {answer}."


@needs_raw_data
def test_shared_conversations_of_the_real_form_are_read(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    shutil.copy(
        RAW / "sft_sharegpt" / "raw" / "dummy_conversation.json",
        tmp_path / "from" / "ShareGPT_V3_unfiltered_cleaned_split.json",
    )
    source = preparing.prepare(SUBSETS["sharegpt"], Origin(tmp_path / "from"), tmp_path / "to")
    chats = prepared.read_chats(tmp_path / "to", "sharegpt")
    assert len(chats) + sum(source.dropped.values()) == 500
    assert {len(chat.messages) for chat in chats} == {2, 4, 6}


@needs_raw_data
def test_what_gsm8k_is_scored_on_is_kept_out_of_what_is_learned(tmp_path: Path) -> None:
    from sparta.tasks.benchmarks.gsm8k import GSM8K

    preparing.prepare(GSM8K, Origin(RAW), tmp_path / "to")
    shutil.copytree(RAW / "sft_cot" / "raw", tmp_path / "from")
    test = json.loads((RAW / "gsm8k" / "raw" / "test.jsonl").read_text().split("\n")[7])
    with (tmp_path / "from" / "gsm8k_train.first285.tsv").open("a") as file:
        file.write("{}\t1\tBecause.\n".format(test["question"].replace("\n", "\\n")))
    source = preparing.prepare(SUBSETS["cot"], Origin(tmp_path / "from"), tmp_path / "to")
    # The one that was added, and one that is a test question but for its numbers.
    assert source.dropped == {"rows that ask what validation or test asks": 2}
    left = {chat.row_id for chat in prepared.read_chats(tmp_path / "to", "cot")}
    assert len(left) == 1994 and not {"gsm8k.first285-20", "gsm8k.first285-285"} & left
    assert "kept clear of validation and test of gsm8k, the tasks that are prepared here" in source.notes
