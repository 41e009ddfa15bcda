"""jobs/evaluate.py: chosen on validation, looked at once on test, and nothing done twice."""

import json
import subprocess
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, advance, begin, command, rows_on_disk, sentence, typed, wait_until

from sparta.cluster.attempts import AttemptDir
from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest
from sparta.evaluation.answer import Evaluate
from sparta.screen import Screen
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


def validation_of(run: Run, *iterations: int) -> Evaluate:
    return Evaluate("validation", {"toy": tuple(run.iteration(t).root.name for t in iterations)})


def answers(run: Run, split: str) -> list[dict]:
    [folder] = (run.state.evals / "toy" / split).glob("answers-*")
    return [
        json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()
    ]


def summary(run: Run) -> dict:
    return json.loads((run.state.evals / "summary.json").read_text())["tasks"]


def own_files(folder: Path, **grading: str) -> dict[str, object]:
    """`data` of a recipe with files of one's own for all splits."""
    for split in ("validation", "test"):
        rows = ({"id": f"{split}{n}", "prompt": f"{split} {n}?", "answer": str(n)} for n in range(5))
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"train": "prompts.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", **grading}


def test_the_first_and_the_last_pool_are_scored_and_the_chosen_ones_tested(run: Run) -> None:
    done = typed("evaluate", run.state.root)
    assert done.returncode == 0, done.stderr
    toy = summary(run)["toy"]
    assert set(toy["validation"]) == {f"iter_{t:02d}-{name}" for t in (0, 2) for name in run.models}
    assert toy["items"] == {"validation": 10, "test": 10}
    chosen = {choice["what"]: choice["checkpoint"] for choice in toy["choices"]}
    assert chosen["best initial model"].startswith("iter_00-")
    assert chosen["best of the last pool"].startswith("iter_02-")
    assert {row["checkpoint"] for row in answers(run, "test")} == set(chosen.values())
    assert len(answers(run, "validation")) == 8 * 10 and len(answers(run, "test")) == 2 * 10
    looks = [json.loads(line) for line in (run.state.evals / "looks.jsonl").read_text().splitlines()]
    assert [(look["task"], look["checkpoint"], look["why"]) for look in looks] == [
        ("toy", name, what) for what, name in chosen.items()
    ]
    for name in chosen.values():
        assert name in done.stdout
    assert f"written to {run.state.evals / 'summary.json'}" in done.stdout
    assert "tasks (model loads): score toy validation 1 (1)" in done.stdout


def test_scoring_again_answers_nothing_again_and_all_pools_only_add(run: Run) -> None:
    typed("evaluate", run.state.root)
    before, looks = len(answers(run, "validation")), (run.state.evals / "looks.jsonl").read_bytes()
    assert typed("evaluate", run.state.root).returncode == 0
    assert len(answers(run, "validation")) == before
    assert (run.state.evals / "looks.jsonl").read_bytes() == looks
    assert typed("evaluate", run.state.root, "--all").returncode == 0
    rows = answers(run, "validation")
    assert len(rows) == before + 4 * 10
    assert len({(row["checkpoint"], row["item_id"]) for row in rows}) == len(rows)


def test_the_choice_may_come_first_and_test_later(tmp_path: Path) -> None:
    run = begin(
        tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4}
    )
    advance(run, 1)
    missing = sentence(typed("evaluate", run.state.root, "--split", "test"))
    assert missing.endswith(f"run python jobs/evaluate.py {run.state.root} --tasks toy --split validation")
    assert typed("evaluate", run.state.root, "--split", "validation").returncode == 0
    assert not (run.state.evals / "toy" / "test").exists()
    done = typed("evaluate", run.state.root, "--split", "test")
    assert done.returncode == 0 and "95 % interval" in done.stdout
    refused = typed("evaluate", run.state.root, "--split", "nonsense")
    assert refused.returncode == 2
    assert "argument --split: invalid choice: 'nonsense' (choose from" in refused.stderr


def test_files_of_one_s_own_are_scored_beside_a_task_of_the_suite(tmp_path: Path) -> None:
    run = begin(
        tmp_path, iterations=1, data=own_files(tmp_path), evaluation={"validation": 4, "max_new_tokens": 64}
    )
    advance(run, 1)
    assert typed("evaluate", run.state.root).returncode == 0
    first = summary(run)
    assert set(first) == {"own"} and first["own"]["items"] == {"validation": 4, "test": 5}
    assert typed("evaluate", run.state.root, "--tasks", "toy", "--split", "validation").returncode == 0
    both = summary(run)
    assert set(both) == {"own", "toy"} and both["own"] == first["own"]


def test_another_run_is_compared_item_by_item(run: Run, tmp_path: Path) -> None:
    assert typed("evaluate", run.state.root).returncode == 0
    other = begin(
        tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 10}
    )
    advance(other, 1)
    done = typed("evaluate", other.state.root, "--against", run.state.root)
    assert done.returncode == 0, done.stderr
    [comparison] = summary(other)["toy"]["against"]
    assert comparison["n"] == 10 and 0 < comparison["p"] <= 1
    assert f"of {run.recipe.name} ({run.info.run_id})" in done.stdout and "p = " in done.stdout


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
    [attempt] = AttemptDir(run, validation_of(run, 0, 1), 0).all()
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
    [validation] = validation_of(run, 0, 1).parts
    process = subprocess.Popen(
        command("evaluate", run.state.root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: LineCounter(validation.folder(run, 0)).fresh())
    process.terminate()
    assert "interrupted: finished work is on disk" in process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 130
    assert typed("evaluate", run.state.root).returncode == 0
    keys = rows_on_disk(run, validation, 0)
    assert len(keys) == len(set(keys)) == 8 * 20


def test_what_has_been_scored_is_read_where_there_is_no_slurm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("evaluate", run.state.root, "--all").returncode == 0
    monkeypatch.setattr("sparta.cluster.slurm.cli.partitions", lambda: pytest.fail("SLURM was asked"))
    asked = EvaluateRequest(run.state.root, every=True, cluster="slurm", profile="devcluster")
    assert len(score(asked, Screen())["toy"].validation) == 3 * 4


def test_a_run_without_a_task_cannot_be_scored(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert "names no task to score on: add --tasks, or set evaluation.tasks" in sentence(
        typed("evaluate", run.state.root)
    )


def test_tasks_that_cannot_be_scored_are_refused_before_anything_is_asked(run: Run, tmp_path: Path) -> None:
    for arguments, said in (
        (("--tasks", "toyy"), "there is no task toyy; did you mean toy?"),
        (("--tasks", "toy,own"), "the task own is made of your own files"),
        (("--tasks", "toy,alpaca"), "alpaca is scored by score, which a judge gives"),
        (("--against", tmp_path), f"{tmp_path} holds no run"),
    ):
        assert said in sentence(typed("evaluate", run.state.root, *arguments))
    unprepared = begin(tmp_path / "new", data={"task": "toy", "size": 9, "folder": str(tmp_path / "empty")})
    said = sentence(typed("evaluate", unprepared.state.root, "--tasks", "gsm8k"))
    assert "jobs/prepare_data.py gsm8k" in said
    assert not unprepared.state.evals.exists()


def test_a_judge_s_endpoint_that_is_down_stops_with_a_sentence_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    endpoint = {"kind": "api", "api": {"url": "http://127.0.0.1:9/v1", "retries": 0, "timeout": 2}}
    data = own_files(tmp_path, grading="judge")
    run = begin(
        tmp_path, iterations=1, data=data, evaluation={"judge": {"base": "umpire", "engine": endpoint}}
    )
    advance(run, 1)
    assert "127.0.0.1:9" in sentence(typed("evaluate", run.state.root))
    rows = len(list((run.state.evals / "own" / "validation").glob("answers-*/*.jsonl")))
    assert rows and not (run.state.evals / "summary.json").exists()
    moved = ("--set", "evaluation.judge.engine.kind=scripted", "--iters", 1)
    assert typed("launch", "--state", run.state.root, *moved).returncode == 0
    done = typed("evaluate", run.state.root)
    assert done.returncode == 0, done.stderr
    assert "grade own validation" in done.stdout and "score own validation" not in done.stdout
    assert 0 < summary(run)["own"]["choices"][0]["test"]["score"]["mean"] <= 10


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
