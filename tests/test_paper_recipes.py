"""sparta/recipes/paper: one recipe for each column of Table 1, each as short as its difference from the rest."""

import json
from pathlib import Path

import pytest
import tiny
import yaml
from rehearsal import sentence, typed

from sparta.prompts import Message
from sparta.recipe_files import RECIPES, load
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.registry import TASKS

PAPER = sorted(set(TASKS) - {"toy"})
EXPERTS = (
    "flan_v2", "cot", "oasst1", "sharegpt", "code_alpaca", "lima", "wizardlm", "open_orca", "science", "gemini_alpaca"
)  # fmt: skip
JUDGED = {"medqa", "com2", "alpaca"}


def test_there_is_a_recipe_for_each_of_the_twelve_tasks() -> None:
    assert len(PAPER) == 12
    assert {path.stem for path in (RECIPES / "paper").glob("*.yaml")} == {*PAPER, "_shared", "_judged"}


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


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings that put small models in the place of the paper's."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny.make_base(folder / "base")
    adapter = tiny.make_adapter(folder / "adapter", base, seed=1)
    models = [{"name": name, "adapter": str(adapter)} for name in EXPERTS]
    return [f"pool.base={base}", f"pool.models={json.dumps(models)}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three items a split of every task, in the form that jobs/prepare_data.py leaves them in."""
    folder = tmp_path_factory.mktemp("data")
    for task in PAPER:
        splits = {split: [item(task, split, number) for number in range(3)] for split in prepared.SPLITS}
        source = prepared.Provenance(task, "local", "none", files={}, dropped={}, notes=(), missing={})
        prepared.write(folder, TASKS[task], splits, source)
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


@pytest.mark.parametrize("task", PAPER)
def test_a_dry_run_of_a_recipe_of_the_paper_checks_it_and_starts_nothing(
    task: str, pool: list[str], data: Path, tmp_path: Path
) -> None:
    settings = [*pool, f"data.folder={data}"]
    given = [part for setting in settings for part in ("--set", setting)]
    options = ("--cluster", "inline", "--state", tmp_path / "state", "--dry-run")
    done = typed("launch", "--recipe", f"paper/{task}", *options, *given)
    assert done.returncode == 0, done.stderr
    assert "10 models" in done.stdout and "1,000 combats" in done.stdout, done.stdout
    assert not (tmp_path / "state").exists()


def test_a_recipe_of_the_paper_without_its_data_or_models_says_what_to_get(
    pool: list[str], tmp_path: Path
) -> None:
    dry = ("--state", tmp_path / "state", "--dry-run")
    folder = ("--set", f"data.folder={tmp_path / 'nowhere'}")
    given = [part for setting in pool for part in ("--set", setting)]
    assert "python jobs/prepare_data.py gsm8k" in sentence(
        typed("launch", "--recipe", "paper/gsm8k", *dry, *folder, *given)
    )
