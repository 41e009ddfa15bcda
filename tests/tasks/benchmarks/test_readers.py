"""Rows as the hub or a complete local copy has them, where the files at hand have another form or lack a split."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.tasks import prepare
from sparta.tasks.base import Item
from sparta.tasks.benchmarks import (
    alpaca,
    com2,
    gsm8k,
    knowledge_crosswords,
    mathematics,
    medqa,
    normad,
    truthfulqa,
)
from sparta.tasks.dataset import Dataset, HubSplit, LocalFile, Rows, Source, Splits
from sparta.tasks.prepare import Origin


def rows_of(**files: list[dict[str, Any]]) -> Rows:
    """Rows by key; a file that is not named is absent."""

    def rows(key: str) -> Iterator[dict[str, Any]]:
        yield from files.get(key.replace(" ", "_"), [])

    return rows


def hub(dataset: Dataset) -> Source:
    assert dataset.hub is not None
    return dataset.hub


def ids(splits: Splits) -> list[list[str]]:
    return [
        [item.item_id for item in items or ()] for items in (splits.train, splits.validation, splits.test)
    ]


def story(number: int) -> dict[str, str]:
    return {
        "ID": str(number),
        "Country": "ruritania",
        "Background": f"### Visiting\n- Take shoes off, says rule {number}.",
        "Axis": "Visiting",
        "Subaxis": "Visiting",
        "Value": f"Respect for hosts ({number})",
        "Rule-of-Thumb": f"It is polite to take shoes off ({number}).",
        "Story": f"Ann kept her shoes on at house {number}. Is what Ann did acceptable?",
        "Explanation": "",
        "Gold Label": "No" if number % 2 else "neutral",
    }


@pytest.mark.parametrize("task", [normad.COUNTRY, normad.VALUE, normad.ROT], ids=lambda task: task.name)
def test_normads_table_gives_all_three_tasks_whole_whatever_its_order(task: Dataset) -> None:
    table = [story(number) for number in range(normad.STORIES)]
    splits = hub(task).read(rows_of(table=table[::-1]))
    assert [len(part) for part in ids(splits)] == [2370, 132, 131]
    train, held_out = normad.split_ids()
    assert ids(splits)[0] == [f"story-{number}" for number in train]
    assert {item for part in ids(splits)[1:] for item in part} == {f"story-{number}" for number in held_out}
    # A table among the files serves as well as that of the hub.
    assert task.local.read(rows_of(table=table)) == splits


@pytest.mark.parametrize(
    ("task", "context"),
    [
        (normad.COUNTRY, "Country: ruritania\nStory: "),
        (normad.VALUE, "Country: ruritania\nValue: Respect for hosts (7)\nStory: "),
        (normad.ROT, "\n\nRule of thumb: It is polite to take shoes off (7).\nStory: "),
    ],
)
def test_each_normad_task_tells_what_it_is_named_for(task: Dataset, context: str) -> None:
    splits = hub(task).read(rows_of(table=[story(7)]))
    [item] = (*(splits.train or ()), *(splits.validation or ()), *(splits.test or ()))
    [message] = item.messages
    assert context in message.content
    assert ("ruritania" in message.content) == (task is not normad.ROT)
    assert (item.answer, item.level) == ("no", "Visiting")
    assert task.grade(item, "No") == {"accuracy": 1.0}
    assert task.grade(item, "Yes, it is.") == {"accuracy": 0.0}


@pytest.mark.parametrize("name", ["normad_country", "normad_rot", "kcross"])
def test_in_combat_a_reason_is_asked_for_before_the_word_or_letter(name: str) -> None:
    if name == "kcross":
        task: Dataset = knowledge_crosswords.KCROSS
        row = {
            "id": "1",
            "domain": "easy",
            "question": "x\nConstraints: (blank 1, is, x).\nOptions: ...",
            "choices": {"A": "blank 1: a", "B": "blank 1: b"},
            "answer": "B",
        }
        item = knowledge_crosswords._given(row)
        short, long = knowledge_crosswords.ONE_LETTER, knowledge_crosswords.REASON_FIRST
    else:
        task = {"normad_country": normad.COUNTRY, "normad_rot": normad.ROT}[name]
        splits = hub(task).read(rows_of(table=[story(7)]))
        [item] = (*(splits.train or ()), *(splits.validation or ()), *(splits.test or ()))
        short, long = normad.ONE_WORD, normad.REASON_FIRST
    before, after = task.posed(item), task.in_combat(item)
    assert before == item and before.messages[0].content.endswith(f"\n\n{short}")
    assert after.messages[0].content == before.messages[0].content.removesuffix(short) + long
    assert "reason" in long and "reason" not in short
    assert (after.answer, after.choices, after.item_id) == (item.answer, item.choices, item.item_id)
    # What ends otherwise was prepared otherwise, and stays as it is.
    assert task.in_combat(after) == after


@pytest.mark.parametrize("task", [gsm8k.GSM8K, medqa.MEDQA, alpaca.ALPACA], ids=lambda task: task.name)
def test_other_data_sets_ask_in_combat_what_they_ask_in_an_evaluation(task: Dataset) -> None:
    item = Item("a", (Message("user", f"Why?\n\n{normad.ONE_WORD}"),), answer="A")
    assert task.in_combat(item) == task.posed(item) == item


def test_a_label_that_normad_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="it is labelled 'maybe', none of yes, no, neutral"):
        hub(normad.COUNTRY).read(rows_of(table=[story(7) | {"Gold Label": "maybe"}]))


def test_truthfulqas_two_lists_mean_what_its_objects_mean() -> None:
    local = {
        "question": "Do pigs fly?",
        "mc1_targets": {"No, they do not.": 1, "Yes, at night.": 0},
        "mc2_targets": {"No, they do not.": 1, "Pigs do not fly.": 1, "Yes, at night.": 0},
    }
    on_hub = {
        "question": local["question"],
        "mc1_targets": {"choices": ["No, they do not.", "Yes, at night."], "labels": [1, 0]},
        "mc2_targets": {
            "choices": ["No, they do not.", "Pigs do not fly.", "Yes, at night."],
            "labels": [1, 1, 0],
        },
    }
    task = truthfulqa.TRUTHFULQA
    [item] = hub(task).read(rows_of(scored=[on_hub])).validation or ()
    assert (item,) == task.local.read(rows_of(scored=[local])).validation
    assert (item.answer, item.right, list(item.choices)) == ("1", ("1", "2"), ["1", "2", "3"])


def test_a_question_without_one_best_answer_is_left_out_and_counted() -> None:
    row = {"question": "Why?", "mc1_targets": {"a": 1, "b": 1}, "mc2_targets": {"a": 1, "b": 1, "c": 0}}
    splits = truthfulqa.TRUTHFULQA.local.read(rows_of(scored=[row]))
    assert not splits.validation and sum(splits.dropped.values()) == 1


def test_a_prompt_with_both_labels_has_no_gold() -> None:
    prompts = [f"Q: Is it?\nA: {answer}\nTrue:" for answer in ("yes", "no", "so")]
    labels = [(prompts[0], " yes"), (prompts[0], " no"), (prompts[1], " no"), (prompts[0], " yes")]
    splits = truthfulqa.TRUTHFULQA.local.read(
        rows_of(
            train=[{"question": prompt + truthfulqa.REQUEST} for prompt in prompts],
            labels=[{"prompt": prompt, "completion": label} for prompt, label in labels],
        )
    )
    assert [item.answer for item in splits.train or ()] == [None, "no", None]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So it is $\boxed{\frac{1}{2}}$, not $\frac{3}{4}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, then \fbox{ 2 }.", "2"),
        (r"so $x = \boxed 5$.", "5"),
        (r"so $x = \boxed5$.", "5"),
        (r"a set \boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("no box at all", ""),
    ],
)
def test_the_answer_of_a_solution_is_in_its_last_box(solution: str, answer: str) -> None:
    assert mathematics.answer_of(solution) == answer


def test_the_hubs_math_is_read_by_subject_with_solutions_everywhere() -> None:
    def row(problem: str, level: str) -> dict[str, str]:
        return {"problem": problem, "level": level, "type": "Algebra", "solution": "It is $\\boxed{3}$."}

    given = rows_of(
        train_algebra=[row("one?", "Level 1"), row("two?", "Level 4"), row("odd?", "Level ?")],
        train_geometry=[row("three?", "Level 2"), row(" Four?", "Level 1")],
        test_algebra=[row("four?", "Level 5"), row("five?", "Level 1")],
    )
    splits = hub(mathematics.EASY).read(given)
    assert ids(splits) == [["train-algebra-0", "train-geometry-0"], ["test-algebra-1"], []]
    assert [(item.answer, item.reference) for item in splits.train or ()] == [
        ("3", "It is $\\boxed{3}$.")
    ] * 2
    # One has no level; one of training is scored on at another level.
    assert splits.dropped == {"train: no level": 1, "train: is scored on in validation or test": 1}


def test_medqa_is_complete_where_its_training_file_is_there() -> None:
    def row(question: str) -> dict[str, Any]:
        options = {"B": "aspirin", "A": " rest ", "C": "surgery", "D": "nothing", "E": "tea"}
        return {"question": question, "options": options, "answer_idx": "B", "meta_info": "step2&3"}

    splits = medqa.MEDQA.local.read(
        rows_of(train=[row("What first?"), row("what now? ")], test=[row("What now?")])
    )
    assert ids(splits) == [["train-0"], ["test-0"], []]
    [item] = splits.train or ()
    assert item.messages[0].content.endswith(
        "\n\nWhat first?\nA. rest\nB. aspirin\nC. surgery\nD. nothing\nE. tea"
    )
    assert (item.answer, item.reference, item.level) == ("B", "B. aspirin", "step2&3")


def test_the_whole_of_alpaca_is_taken_where_it_is_there() -> None:
    whole = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Write.", "input": "", "output": " "},
    ]
    part = [{"instruction": "Sing.", "input": "", "output": "La"}]
    for source in (alpaca.ALPACA.local, hub(alpaca.ALPACA)):
        splits = source.read(rows_of(whole=whole, random_9k=part))
        assert [item.messages[0].content for item in splits.train or ()] == [
            "Add.\n\nInput: 1 and 2",
            "Write.",
        ]
        assert [item.reference for item in splits.train or ()] == ["3", None]
        assert splits.validation is None and splits.test is None


def test_gsm8ks_numbers_have_no_commas() -> None:
    row = {"question": "How many?", "answer": "It is 2*600=<<2*600=1200>>1,200.\n#### 1,200"}
    [item] = gsm8k.GSM8K.local.read(rows_of(test=[row])).validation or ()
    assert (item.answer, item.reference) == ("1200", "It is 2*600=1,200.\n#### 1200")
    assert gsm8k.GSM8K.grade(item, "So many: 1,200") == {"accuracy": 1.0}


def options(answer: str | None) -> dict[str, Any]:
    choices = {"A": "a", "B": "b", "C": "c", "D": "d", "E": com2.NONE}
    return {
        "question": "Constraints?\nConstraints: (a, b, c).\nOptions: Context: x\nQuestion: y",
        "options": choices,
        "choices": choices,
        "answer": answer,
        "answer_idx": answer,
        "id": 5,
        "domain": "easy",
    }


PUBLISHED = {
    gsm8k.GSM8K.name: ("train", {"question": "How many?", "answer": "2 + 3 is 5.\n#### 5"}),
    medqa.MEDQA.name: ("train", options("A")),
    knowledge_crosswords.KCROSS.name: ("train", options("A")),
    com2.COM2.name: ("scored", options("A")),
    mathematics.EASY.name: ("train", {"problem": "How many?", "answer": "5", "level": "Level 1"}),
    normad.ROT.name: ("table", story(7)),
    alpaca.ALPACA.name: ("scored", {"instruction": "Sing.", "output": "La", "dataset": "x"}),
    truthfulqa.TRUTHFULQA.name: (
        "scored",
        {"question": "Why?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}},
    ),
}
"""By data set the key of a file, and a row of it."""


def prepared_of(task: Dataset, key: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Prepare a data set whose files are empty, but for that with `key`."""
    for name, file in task.local.files.items():
        assert isinstance(file, LocalFile)
        if name != key and name in task.local.optional:
            continue
        path = folder / "from" / file.within / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        given = rows if name == key else []
        if file.parts:
            path.write_text(json.dumps({part: given if part == file.parts[0] else [] for part in file.parts}))
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in given))
        elif path.suffix == ".json":
            path.write_text(json.dumps(given))
        else:
            columns = list(dict.fromkeys(column for row in given for column in row))
            with path.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows(given)
    prepare.prepare(task, Origin(folder / "from"), folder / "to")


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        (
            gsm8k.GSM8K,
            {"answer": ...},
            r"train.jsonl, line 2: it has no 'answer', but question; take the row out",
        ),
        (gsm8k.GSM8K, {"answer": None}, "train.jsonl, line 2: it has null for answer"),
        (gsm8k.GSM8K, {"answer": "I do not know 5 things."}, "line 2: its answer has no number after ####"),
        (gsm8k.GSM8K, {"answer": "So many.\n#### "}, "line 2: its answer has no number after ####"),
        (
            medqa.MEDQA,
            {"answer_idx": ""},
            r"train.jsonl, line 2: its answer '' is none of its choices \(A, B, C, D, E\)",
        ),
        (medqa.MEDQA, {"options": ["a", "b"]}, "line 2: not of the form that is known .*'list' object"),
        (
            knowledge_crosswords.KCROSS,
            {"answer": "F"},
            r"knowledge_crosswords.json, test, entry 2: its answer 'F' is none of",
        ),
        (
            knowledge_crosswords.KCROSS,
            {"question": "Why?"},
            "test, entry 2: its constraints are not where they are known to be",
        ),
        (com2.COM2, {"answer": None}, "com2.json, dev, entry 2: its answer None is none of its choices"),
        (com2.COM2, {"question": "Why?"}, "com2.json, dev, entry 2: it has no context and question"),
        (mathematics.EASY, {"answer": ...}, "train_easy.jsonl, line 2: it has no 'answer'"),
        (mathematics.EASY, {"problem": ...}, "train_easy.jsonl, line 2: it has no 'problem'"),
        (
            normad.ROT,
            {"Gold Label": "maybe"},
            "data.csv, line 5: it is labelled 'maybe', none of yes, no, neutral",
        ),
        (normad.ROT, {"ID": "x"}, "data.csv, line 5: invalid literal for int"),
        (
            alpaca.ALPACA,
            {"output": ...},
            "preview.json, entry 2: it has no 'output', but instruction, dataset",
        ),
        (truthfulqa.TRUTHFULQA, {"mc1_targets": ...}, "mc_task.json, entry 2: it has no 'mc1_targets'"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_file_and_place(
    task: Dataset, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    key, row = PUBLISHED[task.name]
    broken = {name: value for name, value in (row | changes).items() if value is not ...}
    with pytest.raises(SpartaError, match=said):
        prepared_of(task, key, [row, broken], tmp_path)
    assert not (tmp_path / "to").exists()


def test_a_bug_of_a_reader_is_no_fault_of_a_row(tmp_path: Path) -> None:
    def read(rows: Rows) -> Splits:
        list(rows("train"))
        raise KeyError("answer")

    task = replace(gsm8k.GSM8K, local=replace(gsm8k.GSM8K.local, read=read))
    with pytest.raises(KeyError):
        prepared_of(task, "train", [], tmp_path)


def test_an_empty_gold_is_no_reference() -> None:
    row = options("A") | {"choices": {"A": " ", "E": com2.NONE}}
    [item] = com2.COM2.local.read(rows_of(scored=[row])).validation or ()
    assert item.reference is None
    references = [{"instruction": "Sing.", "output": " ", "dataset": "x"}]
    [item] = alpaca.ALPACA.local.read(rows_of(scored=references)).validation or ()
    assert item.reference is None


def test_the_hubs_order_of_math_gives_the_halves_of_the_files() -> None:
    rows = [
        {"problem": f"What is {n}?", "level": f"Level {1 + n % 2}", "solution": f"\\boxed{{{n}}}"}
        for n in range(1400)
    ]
    local = mathematics.EASY.local.read(rows_of(test=rows))
    given = {f"test_{subject}": rows[place::7] for place, subject in enumerate(mathematics.SUBJECTS)}
    on_hub = hub(mathematics.EASY).read(rows_of(**given))
    assert [item.answer for item in on_hub.validation or ()] == [
        item.answer for item in local.validation or ()
    ]
    assert [item.answer for item in on_hub.test or ()] == [item.answer for item in local.test or ()]
    assert len(on_hub.validation or ()) == 666


def test_the_problem_that_boxes_its_signs_has_no_answer() -> None:
    problem = mathematics.UNBOXED + ". Find \\[\\boxed{\\boxed{11}\\times\\boxed{20}}\\]"
    row = {
        "problem": problem,
        "level": "Level 4",
        "solution": "$\\boxed{12}$ has 6. We do not \\boxed the answer.",
    }
    splits = hub(mathematics.HARD).read(rows_of(test_prealgebra=[row]))
    assert ids(splits) == [[], [], []] and splits.dropped == {"test: no answer": 1}
    assert not hub(mathematics.EASY).read(rows_of(test_prealgebra=[row])).dropped


def crosswords(graphs: int) -> dict[str, list[dict[str, Any]]]:
    """Graphs that training does not know, each at three difficulties."""
    return {
        difficulty: [
            {
                "id": f"{n}",
                "blanks": ["blank 1"],
                "options": {"blank 1": [f"{difficulty} {letter}" for letter in "abcd"]},
                "answer_all": [f"{difficulty} a"],
                "source": [f"somebody {n}"],
                "relation": ["knows"],
                "target": ["blank 1"],
            }
            for n in range(graphs)
        ]
        for difficulty in knowledge_crosswords.DIFFICULTIES
    }


def test_crosswords_stop_at_the_papers_numbers_whatever_the_sizes_of_graphs() -> None:
    splits = knowledge_crosswords.KCROSS.local.read(rows_of(**crosswords(150)))
    assert [len(part) for part in ids(splits)] == [0, 200, 200]
    graphs = [{item_id.rpartition("-")[0] for item_id in part} for part in ids(splits)[1:]]
    assert not graphs[0] & graphs[1]
    backwards = {difficulty: rows[::-1] for difficulty, rows in crosswords(150).items()}
    assert knowledge_crosswords.KCROSS.local.read(rows_of(**backwards)) == splits


def test_normads_note_holds_where_values_are_not_known() -> None:
    table = [story(number) | ({"Value": None} if number % 2 else {}) for number in range(normad.STORIES)]
    splits = hub(normad.VALUE).read(rows_of(table=table))
    assert sum(map(len, ids(splits))) == 1317 and splits.dropped == {"value not known": 1316}
    assert not any("test" in note for note in splits.notes)


def data_sets() -> list[Dataset]:
    from sparta.tasks.registry import TASKS

    return [task for task in TASKS.values() if isinstance(task, Dataset)]


@pytest.mark.parametrize("task", data_sets(), ids=lambda task: task.name)
def test_hub_splits_are_pinned_to_a_commit_but_normads(task: Dataset) -> None:
    for split in task.hub.files.values() if task.hub else ():
        assert isinstance(split, HubSplit)
        assert re.fullmatch("[0-9a-f]{40}", split.revision) or task.name.startswith("normad_")


@pytest.mark.parametrize("task", data_sets(), ids=lambda task: task.name)
def test_every_file_says_where_to_get_it(task: Dataset) -> None:
    for file in task.local.files.values():
        assert isinstance(file, LocalFile)
        assert "github.com/" in file.origin and f"({file.origin})" in file.described
