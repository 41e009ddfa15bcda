"""sparta/recipes/paper: one recipe for each column of Table 1, each as short as its difference from the rest."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from support import tiny_models
from support.scripted_run import sentence, typed

from sparta.chat.template import Message
from sparta.names import RECIPES
from sparta.recipes.load import load
from sparta.recipes.pool import hub_folder, on_hub
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.chats import Chat
from sparta.tasks.registry import TASKS
from sparta.tasks.sft_data.tulu import SUBSETS

PAPER = sorted(set(TASKS) - {"toy"})
EXPERTS = (
    "flan_v2", "cot", "oasst1", "sharegpt", "code_alpaca", "lima", "wizardlm", "open_orca", "science", "gemini_alpaca"
)  # fmt: skip
JUDGED = {"medqa", "com2", "alpaca"}


def test_there_is_a_recipe_for_each_of_the_twelve_tasks() -> None:
    assert len(PAPER) == 12
    assert {path.stem for path in (RECIPES / "paper").glob("*.yaml")} == {
        *PAPER,
        "_shared",
        "_judged",
        "experts",
    }


@pytest.mark.parametrize("task", PAPER)
def test_a_recipe_of_the_paper_has_its_settings(task: str) -> None:
    recipe = load(f"paper/{task}")
    assert (recipe.data.task, recipe.name) == (task, f"paper-{task}")
    assert tuple(model.name for model in recipe.pool.models) == EXPERTS
    assert (recipe.combats, recipe.iterations, recipe.match.alpha, recipe.match.k) == (1000, 8, 0.6, 5)
    assert (recipe.dpo.learning_rate, recipe.dpo.epochs, recipe.dpo.batch_size) == (1e-6, 1, 1)
    assert (recipe.evaluation.judge is not None) == (task in JUDGED)
    given = yaml.safe_load((RECIPES / "paper" / f"{task}.yaml").read_text())
    assert set(given) == {"extends", "name", "data"}


def test_the_pool_of_the_paper_is_that_of_the_hub() -> None:
    recipe = load("paper/gsm8k")
    assert {recipe.pool.base_of(model) for model in recipe.pool.models} == {"hub:Qwen/Qwen2.5-7B-Instruct"}
    assert {model.name: on_hub(model.adapter or "") for model in recipe.pool.models} == {
        name: (f"bunsenfeng/yuru_qw_{name}", None) for name in EXPERTS
    }


def test_the_experts_may_be_trained_from_their_subsets_in_place_of_fetched() -> None:
    recipe, fetched = load("paper/experts"), load("paper/gsm8k")
    assert tuple(model.name for model in recipe.pool.models) == EXPERTS == tuple(SUBSETS)
    lessons = {model.name: model.sft for model in recipe.pool.models}
    assert {name: lesson and lesson.data for name, lesson in lessons.items()} == {
        name: name for name in EXPERTS
    }
    # C.3: five epochs, one of ShareGPT; learning rate 2e-4, cosine, warm-up 0.1, effective batch 32.
    sft = recipe.pool.sft
    epochs = {name: (lesson and lesson.epochs) or sft.epochs for name, lesson in lessons.items()}
    assert epochs == {name: 1 if name == "sharegpt" else 5 for name in EXPERTS}
    assert (sft.learning_rate, sft.schedule, sft.warmup) == (2e-4, "cosine", 0.1)
    assert sft.batch_size * sft.accumulation == 32
    different = {line.split(":")[0].split(".")[0] for line in fetched.differences(recipe)}
    assert different == {"name", "pool"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that has small models where the paper's are fetched to."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny_models.make_base(hub_folder("hub:Qwen/Qwen2.5-7B-Instruct", str(folder)))
    adapter = tiny_models.make_adapter(folder / "adapter", base, seed=1)
    for name in EXPERTS:
        shutil.copytree(adapter, hub_folder(f"hub:bunsenfeng/yuru_qw_{name}", str(folder)))
    return f"pool.folder={folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three items a split of every task, in the form that jobs/prepare_data.py leaves them in."""
    folder = tmp_path_factory.mktemp("data")
    for task in PAPER:
        splits = {split: [item(task, split, number) for number in range(3)] for split in prepared.SPLITS}
        source = prepared.Provenance(task, "local", "none", files={}, dropped={}, notes=(), missing={})
        prepared.write(folder, TASKS[task], splits, source)
    for subset in SUBSETS:
        rows = [
            Chat(f"row-{number}", (Message("user", "Hello"), Message("assistant", "Hi")))
            for number in range(3)
        ]
        source = prepared.Provenance(subset, "local", "none", files={}, dropped={}, notes=(), missing={})
        prepared.write_chats(folder, subset, rows, source)
    return folder


def item(task: str, split: str, number: int) -> Item:
    return Item(
        f"{split}-{number}",
        (Message("user", f"{task}, {split}: question {number}"),),
        reference="A good answer.",
        choices={"A": "this", "B": "that"},
        answer="A",
        right=("A",),
    )


@pytest.mark.parametrize("recipe", [*PAPER, "experts"])
def test_a_dry_run_of_a_recipe_of_the_paper_checks_it_and_starts_nothing(
    recipe: str, pool: str, data: Path, tmp_path: Path
) -> None:
    options = ("--cluster", "inline", "--state", tmp_path / "state", "--dry-run")
    settings = ("--set", pool, "--set", f"data.folder={data}")
    done = typed("launch", "--recipe", f"paper/{recipe}", *options, *settings)
    assert done.returncode == 0, done.stderr
    assert "10 models" in done.stdout and "1,000 combats" in done.stdout, done.stdout
    assert not (tmp_path / "state").exists()


def test_a_plan_is_shown_before_anything_is_fetched(tmp_path: Path) -> None:
    options = ("--profile", "a100-16", "--state", tmp_path / "state", "--dry-run")
    folders = ("--set", f"pool.folder={tmp_path}/models", "--set", f"data.folder={tmp_path}/data")
    done = typed("launch", "--recipe", "paper/gsm8k", *options, *folders)
    assert done.returncode == 1 and "has not been fetched" in sentence(done)
    said = " ".join(done.stdout.split())
    assert "the pool was not checked" in said
    memory = re.search(
        r"DPO on hub:Qwen/Qwen2.5-7B-Instruct: ([0-9.]+) GiB of GPU memory without gradient checkpointing, ([0-9.]+) with it",
        said,
    )
    assert memory is not None and 20 < float(memory[2]) + 4 < float(memory[1]) < 46
    assert "GPU-hours" in done.stdout and "16,000 votes" in done.stdout
    assert done.stdout.count("not here: hub:") == 11
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_of_the_paper_without_its_data_or_models_says_what_to_get(
    pool: str, data: Path, tmp_path: Path
) -> None:
    def said(recipe: str, *settings: str) -> str:
        given = [part for setting in settings for part in ("--set", setting)]
        return sentence(
            typed("launch", "--recipe", f"paper/{recipe}", "--state", tmp_path / "state", "--dry-run", *given)
        )

    nowhere = tmp_path / "nowhere"
    assert "python jobs/prepare_data.py gsm8k" in said("gsm8k", pool, f"data.folder={nowhere}")
    unfetched = said("gsm8k", f"pool.folder={nowhere}", f"data.folder={data}")
    assert "hub:Qwen/Qwen2.5-7B-Instruct has not been fetched" in unfetched and "--fetch" in unfetched
    unprepared = tmp_path / "data"
    shutil.copytree(data, unprepared)
    shutil.rmtree(unprepared / "science")
    assert "python jobs/prepare_data.py science" in said("experts", pool, f"data.folder={unprepared}")
