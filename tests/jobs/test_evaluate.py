"""jobs/evaluate.py: chosen on validation, scored once on test, and nothing done twice."""

import json
import subprocess
from pathlib import Path

import pytest
from rehearsal import advance, begin, command, rows_on_disk, sentence, typed, wait_until

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.console import Screen
from sparta.cluster.scoring import score
from sparta.phases.evaluate import Evaluate
from sparta.store.run import Run
from sparta.store.shards import LineCounter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("evaluated")
    begun = begin(
        folder, iterations=2, data={"task": "toy", "size": 30}, evaluation={"validation": 10, "test": 10}
    )
    for t in (1, 2):
        advance(begun, t)
    return begun


def answers(run: Run, split: str) -> list[dict]:
    folder = run.state.evals / "toy" / split / "limit-512"
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()
    ]


def test_the_first_and_the_last_pool_are_scored_and_the_chosen_ones_tested(run: Run) -> None:
    done = typed("evaluate", run.state.root)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run.state.evals / "toy" / "summary.json").read_text())
    assert set(summary["validation"]) == {f"iter_{t:02d}-{name}" for t in (0, 2) for name in run.models}
    chosen = {choice["what"]: choice["checkpoint"] for choice in summary["choices"]}
    assert chosen["best initial model"].startswith("iter_00-")
    assert chosen["best of the last pool"].startswith("iter_02-")
    assert {row["checkpoint"] for row in answers(run, "test")} == set(chosen.values())
    assert len(answers(run, "validation")) == 8 * 10 and len(answers(run, "test")) == 2 * 10
    for name in chosen.values():
        assert name in done.stdout


def test_scoring_again_answers_nothing_again_and_all_pools_only_add(run: Run) -> None:
    typed("evaluate", run.state.root)
    before = len(answers(run, "validation"))
    assert typed("evaluate", run.state.root).returncode == 0
    assert len(answers(run, "validation")) == before
    assert typed("evaluate", run.state.root, "--all").returncode == 0
    rows = answers(run, "validation")
    assert len(rows) == before + 4 * 10
    assert len({(row["checkpoint"], row["item_id"]) for row in rows}) == len(rows)


def test_scored_elsewhere_this_once_the_run_keeps_its_own_place(tmp_path: Path) -> None:
    run = begin(
        tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4}
    )
    advance(run, 1)
    frozen = run.state.recipe_yaml.read_bytes()
    assert "there is no profile nowhere" in sentence(
        typed("evaluate", run.state.root, "--profile", "nowhere")
    )
    assert typed("evaluate", run.state.root, "--cluster", "local").returncode == 0
    [attempt] = AttemptDir(run, Evaluate("toy", "validation", (0, 1)), 0).all()
    assert attempt.cluster == "local"
    assert run.state.recipe_yaml.read_bytes() == frozen


def test_asked_to_go_scoring_says_so_and_goes_on_by_the_same_command(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        iterations=1,
        data={"task": "toy", "size": 30},
        evaluation={"validation": 20, "test": 4},
        engine={"kind": "scripted", "scripted": {"delay": 0.02}},
        combats=2,
    )
    advance(run, 1)
    validation = Evaluate("toy", "validation", (0, 1))
    process = subprocess.Popen(
        command("evaluate", run.state.root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: LineCounter(validation.folder(run, 0)).fresh())
    process.terminate()
    assert "interrupted: what is done is on disk" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert typed("evaluate", run.state.root).returncode == 0
    keys = rows_on_disk(run, validation, 0)
    assert len(keys) == len(set(keys)) == 8 * 20


def test_what_has_been_scored_is_read_where_there_is_no_slurm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("evaluate", run.state.root, "--all").returncode == 0
    monkeypatch.setattr("sparta.cluster.slurm.controller.partitions", lambda: pytest.fail("SLURM was asked"))
    summary = score(run.state, every=True, screen=Screen(), cluster="slurm", profile="devcluster")
    assert len(summary.validation) == 3 * 4


def test_a_run_without_a_task_cannot_be_scored(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert "names no task to score on: set evaluation.task" in sentence(typed("evaluate", run.state.root))


def test_where_there_is_no_run_nothing_is_scored_or_written(tmp_path: Path) -> None:
    assert "holds no run" in sentence(typed("evaluate", tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_an_edited_checkpoint_is_not_scored(tmp_path: Path) -> None:
    run = begin(
        tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4}
    )
    advance(run, 1)
    weights = run.iteration(1).adapter("model1") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert f"{weights} was changed after the commit" in sentence(typed("evaluate", run.state.root))
    assert not run.state.evals.exists()
