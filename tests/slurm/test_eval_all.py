"""sbatch slurm/eval_all.sh on a finished run with the paper's number of pools: eight iterations, ten models, its scoring stopped once in the middle."""

import json
import subprocess
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT, rows_on_disk, typed
from support.slurm_runs import Batch

from sparta.cluster.attempts import AttemptDir
from sparta.evaluation.answer import Evaluate
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import LineCounter

PROFILE = ROOT / "slurm" / "profiles" / "devcluster.yaml"
ITEMS = {"validation": 30, "test": 10}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight iterations of the embedded pool, with little to learn from in each."""
    state = tmp_path_factory.mktemp("finished") / "state"
    settings = ("combats=6", *(f"evaluation.{split}={items}" for split, items in ITEMS.items()))
    given = [part for setting in settings for part in ("--set", setting)]
    done = typed("launch", "--recipe", "toy", "--cluster", "inline", "--state", state, "--iters", 8, *given)
    assert done.returncode == 0, done.stderr
    return Run.open(StateDir(state))


def test_ninety_checkpoints_are_scored_by_an_array_that_is_killed_once(
    finished: Run, devcluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished
    monkeypatch.setenv("PROFILE", str(PROFILE))
    monkeypatch.setenv("STATE", str(run.state.root))
    pools = tuple(run.iteration(t).root.name for t in range(9))
    validation = Evaluate("validation", {"toy": pools})
    [part] = validation.parts
    first = Batch("eval_all.sh", log=tmp_path / "first.log")
    first.reaches(lambda: LineCounter(part.folder(run, 0)).fresh())
    # The job and all tasks of its array, as when nodes are lost: nobody is asked to go.
    subprocess.run(["scancel", "--signal=KILL", "--full", f"--user={_me()}"], check=True, timeout=DEADLINE)
    subprocess.run(["scancel", f"--user={_me()}"], check=True, timeout=DEADLINE)
    assert first.ends() != "COMPLETED"
    before = rows_on_disk(run, part, 0)
    assert 0 < len(before) < 90 * ITEMS["validation"]

    again = Batch("eval_all.sh", log=tmp_path / "again.log")
    assert again.ends() == "COMPLETED", again.text
    keys = rows_on_disk(run, part, 0)
    assert len(set(keys)) == 90 * ITEMS["validation"]
    assert len(keys) - len(set(keys)) == 0, "what was there is not made again"
    told = json.loads((run.state.evals / "summary.json").read_text())["tasks"]["toy"]
    assert len(told["validation"]) == 90
    for choice in told["choices"]:
        assert choice["checkpoint"] in again.text
    best = [choice for choice in told["choices"] if choice["what"] == "best of all checkpoints"]
    assert [choice["validation"] for choice in best] == [max(told["validation"].values())]

    for phase in (validation, Evaluate("test", {"toy": pools})):
        attempts = AttemptDir(run, phase, 0)
        last = attempts.all()[-1]
        loads = [record.loads for record in attempts.records(last)]
        assert loads == [1] * last.shards, "one load of the base a task of the array"


def _me() -> str:
    import getpass

    return getpass.getuser()
