"""SFT data is checked when a run begins: for evaluation questions, and with the chat template of the base."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import real_data, tiny_models
from support.expert_recipes import write_lessons, write_school
from support.openings import planned
from support.scripted_run import sentence, typed

from sparta.errors import SpartaError
from sparta.pool.expert_data import gather_sft_data, notes_on_sft_data
from sparta.recipes.load import load
from sparta.store.layout import StateDir
from sparta.tasks import prepare
from sparta.tasks.benchmarks.gsm8k import GSM8K
from sparta.tasks.prepare import Origin
from sparta.tasks.sft_data.tulu import SUBSETS

QUESTIONS = ("What does a Ruritanian crown weigh?", "Who carved the doors of the cathedral of Strelsau?")
LAST_ANSWER_ALONE = tiny_models.CHAT_TEMPLATE.replace(
    "message['content']",
    "(message['content'] if message['role'] != 'assistant' or loop.last else '...')",
)
"""Drops earlier answers, as some templates drop earlier thinking."""


def scored_on(folder: Path, **splits: Sequence[str]) -> dict[str, str]:
    """The `data` section of a recipe with these questions in the user's own files."""
    for split, questions in splits.items():
        rows = (json.dumps({"prompt": question, "answer": "1"}) for question in questions)
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return {"train": "prompts.jsonl", **{split: f"{split}.jsonl" for split in splits}}


def add_rows(path: Path, *chats: Sequence[str]) -> None:
    """Append a row for each, with alternating user and assistant turns."""
    with path.open("a") as file:
        for number, turns in enumerate(chats):
            messages = [
                {"role": ("user", "assistant")[place % 2], "content": turn}
                for place, turn in enumerate(turns)
            ]
            file.write(json.dumps({"id": f"late{number}", "messages": messages}) + "\n")


# --- what the run is scored on


def test_rows_with_an_evaluation_question_are_counted_and_reported_before_a_run_begins(
    tmp_path: Path,
) -> None:
    data = scored_on(tmp_path, validation=QUESTIONS[:1], test=QUESTIONS[1:])
    path = write_lessons(tmp_path / "lessons" / "bea.jsonl", 6)
    add_rows(
        path, (QUESTIONS[0].upper(), "9 pounds."), ("Hello!", "Hi.", QUESTIONS[1], "Ludwig."), ("Who?", "I.")
    )
    recipe, state = write_school(tmp_path, data=data, iterations=1), tmp_path / "state"
    told = (
        f"bea is trained on validation or test questions of own (2 of 9 rows of {path}), which inflates its scores there: "
        "take them out before a run begins"
    )
    for more in (("--dry-run",), ()):
        done = typed("init_pool", "--recipe", recipe, "--state", state, *more)
        assert done.returncode == 0, done.stderr
        assert " ".join(done.stdout.split()).count("inflates its scores") == 1 and told in " ".join(
            done.stdout.split()
        )
    noted = json.loads((state / "data" / "lessons.json").read_text())
    assert {name: lessons["held_out"] for name, lessons in noted.items()} == {
        "ada": 0,
        "bea": 2,
        "cem": 0,
        "dov": 0,
    }
    assert "inflates its scores" in typed("launch", "--state", state, "--dry-run").stdout


def test_without_tasks_to_score_on_there_is_no_warning(tmp_path: Path) -> None:
    path = write_lessons(tmp_path / "lessons" / "bea.jsonl", 6)
    add_rows(path, (QUESTIONS[0], "9 pounds."))
    run = planned(StateDir(tmp_path / "state"), load(write_school(tmp_path)))
    assert list(notes_on_sft_data(run)) == []


@real_data.needs_raw_data
def test_a_subset_that_was_prepared_before_the_evaluation_is_to_be_prepared_again(tmp_path: Path) -> None:
    raw, folder = real_data.RAW, tmp_path / "prepared"
    shutil.copytree(raw / "sft_cot" / "raw", tmp_path / "from")
    test = json.loads((raw / "gsm8k" / "raw" / "test.jsonl").read_text().split("\n")[7])
    with (tmp_path / "from" / "gsm8k_train.first285.tsv").open("a") as file:
        file.write("{}\t1\tBecause.\n".format(test["question"].replace("\n", "\\n")))
    prepare.prepare(SUBSETS["cot"], Origin(tmp_path / "from"), folder)
    prepare.prepare(GSM8K, Origin(raw), folder)
    others = [{"name": "zoe", "sft": {"data": "cot"}}]
    data = {"train": "prompts.jsonl", "folder": str(folder)}
    recipe = load(write_school(tmp_path, others=others, data=data, evaluation={"tasks": ["gsm8k"]}))
    [said] = notes_on_sft_data(planned(StateDir(tmp_path / "state"), recipe))
    assert said.startswith("zoe is trained on validation or test questions of gsm8k (2 of 1,996 rows of cot)")
    assert f"run python jobs/prepare_data.py cot --folder {folder} again before a run begins" in said
    prepare.prepare(SUBSETS["cot"], Origin(tmp_path / "from"), folder)
    assert gather_sft_data(recipe)["zoe"].held_out == 0


# --- the chat template


@pytest.fixture
def forgetful(tiny_base: Path, tmp_path: Path) -> Path:
    """`tiny_base` with a chat template that changes all answers of a chat but the last."""
    base = Path(shutil.copytree(tiny_base, tmp_path / "forgetful"))
    config = base / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": LAST_ANSWER_ALONE}))
    return base


def test_a_chat_that_the_chat_template_changes_is_refused_before_a_run_begins(
    tmp_path: Path, forgetful: Path
) -> None:
    path = tmp_path / "lessons" / "bea.jsonl"
    path.parent.mkdir()
    add_rows(path, *[(f"{n}?", f"{n}.") for n in range(30)], ("a?", "a.", "b?", "b."), ("c?", "c."))
    for name in ("ada", "cem"):
        shutil.copy(path, path.with_name(f"{name}.jsonl"))
        lines = [line for line in path.read_text().splitlines() if '"a?"' not in line]
        path.with_name(f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    engine = {"kind": "hf", "context_length": 256}
    recipe = write_school(tmp_path, names=("ada", "bea", "cem"), base=str(forgetful), engine=engine)
    for more in (("--dry-run",), ()):
        said = sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "state", *more))
        assert said.startswith(f"model bea: row late30 of {path}: the chat template of base {forgetful} ")
    assert not (tmp_path / "state" / "run.json").exists()


def test_a_system_turn_that_the_chat_template_refuses_is_found_in_any_row(
    tmp_path: Path, tiny_base: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "strict"))
    config = base / "tokenizer_config.json"
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"chat_template": strict + tiny_models.CHAT_TEMPLATE})
    )
    path = write_lessons(tmp_path / "lessons" / "bea.jsonl", 30)
    messages = [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    with path.open("a") as file:
        file.write(json.dumps({"id": "ruled", "messages": messages}) + "\n")
    engine = {"kind": "hf", "context_length": 256}
    recipe = load(write_school(tmp_path, names=("ada", "bea", "cem"), base=str(base), engine=engine))
    with pytest.raises(
        SpartaError,
        match="model bea: row ruled of .*: the chat template of base .* refuses a prompt with the roles",
    ):
        gather_sft_data(recipe)
