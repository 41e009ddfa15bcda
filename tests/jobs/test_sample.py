"""jobs/sample.py: sampled answers of validation items, resumed after a kill, and what it refuses."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from support.scripted_run import advance, begin, launches, sentence, typed, wait_until

from sparta.store.run import Run
from sparta.store.shards import LineCounter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sampled")
    judge = {"base": "judge", "engine": {"kind": "scripted"}}
    begun = begin(
        folder,
        iterations=2,
        data={"task": "toy", "size": 30},
        evaluation={"validation": 6, "test": 6, "judge": judge},
    )
    for t in (1, 2):
        advance(begun, t)
    return begun


def rows(run: Run, kind: str = "samples-*") -> list[dict]:
    paths = sorted((run.state.evals / "toy" / "validation").glob(f"{kind}/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_the_first_and_the_last_pool_answer_and_all_pools_only_add(run: Run) -> None:
    done = typed("sample", run.state.root, "--samples", 2, "--items", 3, "--graded")
    assert done.returncode == 0, done.stderr
    assert "toy: 6 sampled answers of each of 8 checkpoints" in done.stdout
    assert "toy: 6 of 6 sets are graded" in done.stdout
    found = rows(run)
    assert len(found) == 2 * 4 * 3 * 2 and len(rows(run, "set-grades-*")) == 2 * 3
    assert {row["checkpoint"][:7] for row in found} == {"iter_00", "iter_02"}
    assert (
        not (run.state.evals / "toy" / "test").exists()
        and not run.state.evals.joinpath("looks.jsonl").exists()
    )
    assert typed("sample", run.state.root, "--samples", 2, "--items", 3, "--all").returncode == 0
    assert rows(run)[: len(found)] == found and len(rows(run)) == 3 * 4 * 3 * 2
    done = typed("sample", run.state.root, "--samples", 3, "--checkpoints", "iter_01-model2", "--items", "3")
    assert done.returncode == 0 and len(rows(run)) == 3 * 4 * 3 * 2 + 3
    checked = typed("verify", run.state.root)
    assert checked.returncode == 0, checked.stdout


def test_what_was_sampled_is_checked_too(run: Run) -> None:
    assert typed("sample", run.state.root, "--samples", 2, "--items", 3, "--graded").returncode == 0
    for kind in ("samples-*", "set-grades-*"):
        [path, *_] = sorted((run.state.evals / "toy" / "validation").glob(f"{kind}/*.jsonl"))
        whole = path.read_bytes()
        strange = json.loads(whole.splitlines()[0]) | {"item_id": "nobody's"}
        path.write_bytes(whole + b'{"torn": \n' + json.dumps(strange).encode() + b"\n")
        checked = typed("verify", run.state.root)
        path.write_bytes(whole)
        assert checked.returncode == 1 and "delete the line, and sample again" in checked.stdout
        assert "that nothing asked for" in checked.stdout


def test_a_killed_command_goes_on_and_makes_each_row_once(tmp_path: Path) -> None:
    run = begin(tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 60})
    command = (run.state.root, "--samples", 60, "--checkpoints", "iter_00")
    folder = run.state.evals / "toy" / "validation"
    with launches("sample") as start:
        process = start(*command)

        def begun() -> bool:
            return process.poll() is not None or LineCounter(*folder.glob("samples-*")).fresh() > 20

        wait_until(begun)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = LineCounter(*folder.glob("samples-*")).fresh()
    assert 20 < before < 4 * 60 * 60
    done = typed("sample", *command)
    assert done.returncode == 0, done.stderr
    [samples] = folder.glob("samples-*")
    keys = Counter(
        (row["checkpoint"], row["item_id"], row["number"])
        for path in samples.iterdir()
        for line in path.read_text().splitlines()
        if line.endswith("}")
        for row in [json.loads(line)]
    )
    assert len(keys) == 4 * 60 * 60 and set(keys.values()) == {1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--samples", 0], "--samples 0 asks for no answer"),
        (["--samples", -3], "--samples -3 asks for no answer"),
        (["--samples", 1, "--checkpoints", "iter_02-model1"], "one sample of iter_02-model1 makes no set"),
        (["--temperature", 0], "a temperature of 0 cannot be sampled with"),
        (["--temperature", "nan"], "a temperature of nan cannot be sampled with"),
        (["--temperature", 6], "at most 5"),
        (["--items", 0], "--items 0 asks for no item"),
        (["--tasks", "nonsense"], "nonsense"),
        (["--tasks", " , "], "--tasks names no task"),
        (["--checkpoints", "iter_02-nobody"], "there is no checkpoint iter_02-nobody"),
        (["--checkpoints", "iter_07"], "iter_07 is of an iteration that"),
        (["--checkpoints", "best"], "'best' is neither a checkpoint"),
        (["--checkpoints", ","], "--checkpoints names none"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_sentence(
    run: Run, arguments: list[object], said: str
) -> None:
    before = rows(run)
    assert said in sentence(typed("sample", run.state.root, *arguments))
    assert rows(run) == before


def test_a_graded_run_needs_a_judge(tmp_path: Path) -> None:
    run = begin(tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4})
    assert "names no judge" in sentence(typed("sample", run.state.root, "--graded"))
    assert not run.state.evals.exists()
    assert "holds no run" in sentence(typed("sample", tmp_path / "nowhere"))


def test_one_sample_of_a_whole_pool_is_the_set_of_the_paper(tmp_path: Path) -> None:
    run = begin(tmp_path, iterations=1, data={"task": "toy", "size": 30}, evaluation={"validation": 4})
    assert typed("sample", run.state.root, "--samples", 1).returncode == 0
    assert len(rows(run)) == 4 * 4
