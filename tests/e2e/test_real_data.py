"""GSM8K and NormAd Country as they are: prepared, one Sparta iteration of a small pool on each, both scored, by the commands a person types."""

import json
from pathlib import Path

import pytest
from support.real_data import TASKS, check_evaluated, needs_raw_data, prepared, rows, write_recipe
from support.scripted_run import typed

pytestmark = needs_raw_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("task", TASKS)
def test_a_small_pool_plays_an_iteration_on_real_prompts_and_is_scored(
    task: str, data: Path, tmp_path: Path
) -> None:
    recipe, state = write_recipe(tmp_path, data, task), tmp_path / "state"
    # In two processes, and in one, which takes a tenth of the time.
    where = ("local", "--set", "cluster.tasks=2") if task == "gsm8k" else ("inline",)
    played = typed("launch", "--recipe", recipe, "--state", state, "--cluster", *where)
    assert played.returncode == 0, played.stderr
    asked = {combat["prompt_id"] for combat in rows(state / "iter_01" / "plan.jsonl")}
    assert asked and asked <= {row["id"] for row in rows(data / task / "train.jsonl")}
    stats = json.loads((state / "iter_01" / "stats.json").read_text())
    assert stats["reasons"].get("pair", 0) > 0
    scored = typed("evaluate", state, "--cluster", "inline")
    assert scored.returncode == 0, scored.stderr
    check_evaluated(state, data)
