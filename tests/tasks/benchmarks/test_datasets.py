"""The twelve data sets on their real files: numbers, overlap, prompts, and that what is right is graded as right."""

import json
import re
from collections.abc import Iterator
from functools import cache

import pytest
from support.real_data import RAW, needs_raw_data

from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks.base import Item, Split
from sparta.tasks.benchmarks import knowledge_crosswords, mathematics, normad, truthfulqa
from sparta.tasks.benchmarks.toy import Toy
from sparta.tasks.dataset import Dataset, Splits
from sparta.tasks.prepared import SPLITS, content
from sparta.tasks.raw_files import LocalRaw
from sparta.tasks.registry import TASKS, task_named

NAMES = [
    "medqa",
    "normad_country",
    "normad_value",
    "normad_rot",
    "kcross",
    "gsm8k",
    "com2",
    "math_easy",
    "math_medium",
    "math_hard",
    "alpaca",
    "truthfulqa",
]
COUNTS: dict[str, tuple[int, int, int]] = {
    "medqa": (0, 636, 637),
    # The paper says 264 to score on; the published table of 2,633 stories has 263 beside the 2,370.
    "normad_country": (2370, 132, 131),
    # Values are known of 2,500 stories.
    "normad_value": (2249, 124, 127),
    "normad_rot": (0, 0, 0),
    "kcross": (1200, 200, 200),
    "gsm8k": (7473, 660, 659),
    # 7,200 less what is asked twice.
    "com2": (7200 - 157, 400, 400),
    "math_easy": (1912, 666, 665),
    "math_medium": (1592, 566, 565),
    # 3,994 problems are published, the paper says 2,994; one to score on has no answer.
    "math_hard": (3994 - 4, 1269, 1269 - 1),
    "alpaca": (18669, 402, 403),
    "truthfulqa": (7200 - 621, 400, 400),
}
"""Items of the splits that the files hold; where this is not the paper's Table 4, for the reason given."""
CHAT = {"normad_country", "normad_value", "normad_rot", "kcross", "truthfulqa"}
"""The tasks that C.5 asks through the chat template."""


def dataset(name: str) -> Dataset:
    task = task_named(name)
    assert isinstance(task, Dataset)
    return task


@cache
def made(name: str) -> Splits:
    """What becomes of the real files of a data set."""
    source = dataset(name).local
    return source.read(LocalRaw(source, RAW).rows)


def items(name: str, split: Split) -> tuple[Item, ...]:
    found: tuple[Item, ...] | None = getattr(made(name), split)
    return found or ()


def scored(name: str) -> Iterator[Item]:
    yield from (*items(name, "validation"), *items(name, "test"))


def everything(name: str) -> Iterator[Item]:
    yield from (*items(name, "train"), *scored(name))


def text(item: Item) -> str:
    [message] = item.messages
    assert message.role == "user"
    return message.content


def test_the_tasks_are_the_papers_twelve_in_its_order_and_the_toy() -> None:
    assert list(TASKS) == [*NAMES, "toy"]
    assert all(TASKS[name].name == name for name in TASKS)


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpartaError, match="did you mean gsm8k"):
        task_named("gsm8")
    with pytest.raises(SpartaError, match=r"known tasks: medqa, .* own instructions go into data\.train"):
        task_named("chess")


def test_the_task_own_is_made_of_the_files_that_are_named() -> None:
    assert task_named("own", Data(train="x.jsonl")).name == "own"
    with pytest.raises(SpartaError, match=r"name them in data\.train"):
        task_named("own", Data(task="gsm8k"))


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_asked_as_the_paper_asks_it(name: str) -> None:
    task = dataset(name)
    assert task.chat_template == (name in CHAT)
    # Without a template nothing else ends the answer of a base model that goes on with a question of its own.
    assert bool(task.stop) == (not task.chat_template)
    assert task.stop == () or task.scaffold.before.rstrip() in "".join(task.stop)
    assert task.likelihood == (name == "truthfulqa")
    assert [metric.top for metric in task.metrics if metric.rubric] == [10.0] * sum(
        metric.rubric is not None for metric in task.metrics
    )
    judged = {
        "com2": ["score"],
        "alpaca": ["score"],
        "medqa": ["comprehensiveness", "informativeness", "coherence"],
    }
    assert [metric.name for metric in task.metrics if metric.rubric] == judged.get(name, [])
    assert task.metrics[0].name == {"com2": "score", "alpaca": "score", "truthfulqa": "mc1"}.get(
        name, "accuracy"
    )


def test_the_toy_task_grades_as_data_sets_do() -> None:
    toy = Toy()
    data = Data(task="toy")
    assert [len(toy.items(split, data)) for split in SPLITS] == [2000, 300, 600]
    assert len(toy.items("train", Data(task="toy", size=40))) == 40
    item = toy.items("test", data)[0]
    assert toy.grade(item, f" {item.answer}\n") == {"accuracy": 1.0}
    assert toy.grade(item, f"{item.answer} or so") == {"accuracy": 0.0}


@needs_raw_data
@pytest.mark.parametrize("name", NAMES)
def test_splits_have_the_papers_numbers_or_a_reason(name: str) -> None:
    counts = tuple(len(items(name, split)) for split in SPLITS)
    assert counts == COUNTS[name]
    task, splits = dataset(name), made(name)
    for split, count, paper in zip(SPLITS, counts, task.paper, strict=True):
        assert count or split in task.missing, f"{name} has no {split} and does not say what to get"
        said = splits.dropped or splits.notes
        assert count in (0, paper) or said, f"{name} {split}: {count}, not {paper}, and nothing says why"


@needs_raw_data
@pytest.mark.parametrize("name", NAMES)
def test_no_two_items_ask_the_same_or_have_one_id(name: str) -> None:
    found = list(everything(name))
    assert len({content(item) for item in found}) == len(found)
    assert len({item.item_id for item in found}) == len(found)


@needs_raw_data
@pytest.mark.parametrize("name", NAMES)
def test_items_are_whole(name: str) -> None:
    task = dataset(name)
    for item in everything(name):
        assert len(text(item).strip()) > 3
        assert item.reference is None or item.reference.strip()
        assert item.answer is None or item.answer.strip() == item.answer != ""
        assert not item.choices or item.answer in item.choices
        assert all(choice.strip() for choice in item.choices.values())
        assert len(set(item.choices.values())) == len(item.choices)
    needed = any(metric.rubric is None for metric in task.metrics)
    assert all(item.answer for item in scored(name)) == needed or name == "normad_rot"
    if any(metric.rubric and metric.rubric.reference for metric in task.metrics):
        assert all(item.reference for item in scored(name))


@needs_raw_data
@pytest.mark.parametrize("name", ["medqa", "normad_country", "normad_value", "kcross", "gsm8k"])
def test_right_answers_are_graded_as_right_and_others_as_wrong(name: str) -> None:
    task = dataset(name)
    found = list(everything(name))
    for item, other in zip(found, (*found[1:], found[0]), strict=True):
        assert item.reference and item.answer
        assert task.grade(item, item.reference) == {"accuracy": 1.0}, item.reference
        assert task.grade(item, f"The answer is {item.answer}.") == {"accuracy": 1.0}
        assert task.grade(item, f" {item.answer}") == {"accuracy": 1.0}
        assert task.grade(item, "I do not know") == {"accuracy": 0.0}
        if other.answer != item.answer:
            assert task.grade(item, f"The answer is {other.answer}.") == {"accuracy": 0.0}


@needs_raw_data
@pytest.mark.parametrize("name", ["math_easy", "math_medium", "math_hard"])
def test_the_right_answer_of_every_scored_problem_of_math_is_graded_as_right(name: str) -> None:
    task = dataset(name)
    missed = [
        item.answer
        for item in scored(name)
        if task.grade(item, f"It is \\boxed{{{item.answer}}}.") != {"accuracy": 1.0}
    ]
    assert not missed


@needs_raw_data
@pytest.mark.parametrize("name", ["math_easy", "math_medium"])
def test_published_solutions_give_the_published_answers(name: str) -> None:
    given = {}
    for line in (RAW / "math" / "raw" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        given[mathematics.LEAD + row["problem"].strip()] = row["answer"].strip()
    found = items(name, "train")
    assert all(item.reference for item in found)
    assert [item.answer for item in found] == [given[text(item)] for item in found]


@needs_raw_data
def test_what_models_are_scored_on_in_math_is_trained_on_at_no_level() -> None:
    names = ("math_easy", "math_medium", "math_hard")
    asked = {content(item) for name in names for item in scored(name)}
    assert len(asked) == 5000 - 1
    assert not asked & {content(item) for name in names for item in items(name, "train")}
    for name, levels in zip(names, mathematics.LEVELS.values(), strict=True):
        assert {item.level for item in everything(name)} == set(levels)


@needs_raw_data
def test_medqa_is_cut_where_the_authors_cut_it() -> None:
    authors = json.loads((RAW / "medqa" / "raw" / "medqa_us_4opt_dev_test.json").read_text())
    for split, part in (("validation", authors["dev"]), ("test", authors["test"])):
        questions = [row["question"].strip() for row in part]
        assert all(
            question in text(item) for question, item in zip(questions, items("medqa", split), strict=True)
        )
    [item] = items("medqa", "validation")[:1]
    assert list(item.choices) == list("ABCDE")
    assert f"\nC. {item.choices['C']}\n" in text(item)
    assert text(item).endswith(f"\nE. {item.choices['E']}")


@needs_raw_data
def test_normads_tasks_have_one_split_which_is_the_authors() -> None:
    train, held_out = normad.split_ids()
    authors = json.loads((RAW / "normad" / "raw" / "country_dataset.json").read_text())
    assert [int(key) for key in authors["train"]] == train
    assert [int(key) for key in authors["test"]] == held_out
    for split in SPLITS:
        country, value = (
            {item.item_id: item for item in items(name, split)} for name in ("normad_country", "normad_value")
        )
        assert value.keys() <= country.keys()
        for key, item in value.items():
            told, rest = text(item), text(country[key])
            assert re.sub(r"\nValue: [^\n]+", "", told, count=1) == rest != told
            assert item.answer == country[key].answer
    values = json.loads((RAW / "normad" / "raw" / "normad_value.json").read_text())
    gold = {
        f"story-{row['id']}": row["choices"][row["answer"]]
        for part in ("dev", "test")
        for row in values[part]
    }
    assert all(gold[item.item_id] == item.answer for item in everything("normad_value"))


@needs_raw_data
def test_crosswords_in_training_are_the_authors_and_those_scored_on_are_answered_by_their_graphs() -> None:
    folder = RAW / "knowledge_crosswords" / "raw"
    authors = json.loads((folder / "train.json").read_text())["train"]
    train = items("kcross", "train")
    assert [item.answer for item in train[:1000]] == [row["completion"] for row in authors]
    for item, row in zip(train, authors, strict=False):
        # The constraints and, less a semicolon, the four choices.
        assert all(line.rstrip(";") in text(item) for line in row["prompt"].splitlines()[4:])
        assert row["prompt"].splitlines()[1].partition(": ")[2].rstrip(".") in text(item)
    answers = {}
    for line in (folder / "KC_datasetwithKNS.jsonl").read_text().splitlines():
        row = json.loads(line)
        answers[row["id"]] = [
            "; ".join(f"{blank}: {entity}" for blank, entity in zip(row["blanks"], found, strict=True))
            for found in row["ans_all"]
        ]
    for item in scored("kcross"):
        assert list(item.choices) == list("ABCD")
        right = [label for label, choice in item.choices.items() if choice in answers[graph(item)]]
        assert right == [item.answer]


def graph(item: Item) -> str:
    return item.item_id.rpartition("-")[0]


@needs_raw_data
def test_no_graph_is_in_both_validation_and_test_and_levels_say_which_training_knows() -> None:
    train, validation, test = ({graph(item) for item in items("kcross", split)} for split in SPLITS)
    assert not validation & test
    known = [item for item in scored("kcross") if (item.level or "").endswith(knowledge_crosswords.KNOWN)]
    assert known == [item for item in scored("kcross") if graph(item) in train]
    assert len(known) == 121
    assert "121 of 400" in made("kcross").notes[0]
    assert abs(sum(item in known for item in items("kcross", "test")) - 121 / 2) < 2


@needs_raw_data
def test_gsm8k_is_asked_without_the_calculators_marks() -> None:
    [item] = items("gsm8k", "train")[:1]
    assert text(item).endswith(
        "\n\nNatalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
        "How many clips did Natalia sell altogether in April and May?"
    )
    assert (item.answer, (item.reference or "").splitlines()[-1]) == ("72", "#### 72")
    assert not any("<<" in (item.reference or "") for item in everything("gsm8k"))


@needs_raw_data
def test_com2_is_scored_on_questions_with_one_good_answer_and_none_of_training() -> None:
    from sparta.tasks.benchmarks import com2

    assert all("Context: " in text(item) and "\nQuestion: " in text(item) for item in everything("com2"))
    assert not any("The answer is" in text(item) for item in everything("com2"))
    assert not any((item.reference or "").endswith(("\\", com2.NONE)) for item in scored("com2"))
    assert made("com2").dropped["validation, test: no right choice to refer to"] == 178


@needs_raw_data
def test_alpacas_inputs_are_shown_and_alpaca_eval_is_whole() -> None:
    rows = json.loads((RAW / "alpaca" / "raw" / "alpaca_eval_gpt4_1106_preview.json").read_text())
    assert {text(item) for item in scored("alpaca")} == {row["instruction"].strip() for row in rows}
    with_input = [item for item in items("alpaca", "train") if "\n\nInput: " in text(item)]
    assert 0.3 < len(with_input) / 18669 < 0.5


@needs_raw_data
def test_the_likelihood_of_truthful_answers_is_what_counts() -> None:
    task = dataset("truthfulqa")
    rows = json.loads((RAW / "truthfulqa" / "raw" / "mc_task.json").read_text())
    targets = {truthfulqa.LEAD + row["question"].strip(): row for row in rows}
    for item in scored("truthfulqa"):
        row = targets[text(item)]
        true = {choice.strip() for choice, right in row["mc2_targets"].items() if right}
        assert {item.choices[label] for label in item.right} == true
        assert [item.choices[item.answer or ""]] == [
            choice.strip() for choice, right in row["mc1_targets"].items() if right
        ]
        wrong = [label for label in item.choices if label not in item.right]
        good = task.score_likelihoods(
            item, {label: -1.0 if label == item.answer else -9.0 for label in item.choices}
        )
        bad = task.score_likelihoods(
            item, {label: -1.0 if label == wrong[-1] else -9.0 for label in item.choices}
        )
        assert good["mc1"] == 1.0 and good["mc2"] > 0.9
        assert bad["mc1"] == 0.0 and bad["mc2"] < 0.1


@needs_raw_data
def test_truthfulqas_training_asks_what_the_authors_asked_with_labels_where_there_is_one() -> None:
    rows = (RAW / "truthfulqa" / "raw" / "data_train.jsonl").read_text().splitlines()
    asked = {json.loads(line)["question"] for line in rows}
    train = items("truthfulqa", "train")
    assert {text(item) for item in train} <= asked
    assert {item.answer for item in train} == {"yes", "no", None}
    assert sum(item.answer is None for item in train) <= 25
    dogs = next(item for item in train if text(item).startswith("Q: Are all dogs dogs?\nA: no\n"))
    assert (dogs.answer, dogs.reference) == ("no", "No, the answer is not true.")
