"""A study runs its cells side by side; cells fail alone; the same command heals; what has begun is not changed."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from chaos.shim import Fault
from support.scripted_run import ROOT, Launched, launches, sentence, typed, wait_until
from support.study_runs import BASELINE, results, rewritten, write_study

from sparta.commands.begin import check_state
from sparta.evaluation.answer import Answers
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.process import runs
from sparta.store.records import Answer
from sparta.store.run import Run
from sparta.store.shards import adopted_file, shard_files
from sparta.studies.layout import StudyDir
from sparta.studies.manifest import read_manifest

AXES: dict[str, Any] = {"method": {"sparta": {}, "self": BASELINE}, "seed": [0, 1]}
EQUAL = {**BASELINE, "baseline.budget.like": "cell:method=sparta"}


@pytest.fixture
def started() -> Iterator[Launched]:
    with launches("study") as start:
        yield start


def run(path: Path, *options: object, **environment: str) -> Any:
    return typed("study", path, "--state", path.parent / "study", "--limit", 2, *options, **environment)


def answers_made(state: StateDir) -> Counter[str]:
    """Answers that the run made itself, by iteration of the checkpoint."""
    opened = Run.open(state)
    made = Counter[str]()
    for split in ("validation", "test"):
        folder = Answers("own", split, ()).folder(opened)
        for path in shard_files(folder):
            if path != adopted_file(folder):
                made.update(row.checkpoint.partition("-")[0] for row in files.read_rows(path, Answer))
    return made


def test_a_study_runs_all_cells_and_scores_their_initial_pool_once(tmp_path: Path) -> None:
    axes = {"method": {"sparta": {}, "equal": EQUAL}, "seed": [0, 1]}
    path = write_study(tmp_path, axes, compare={"method": "sparta"})
    done = run(path)
    assert done.returncode == 0, done.stderr
    place = StudyDir(tmp_path / "study")
    manifest = read_manifest(place)
    assert {cell.state for cell in manifest.cells} == {"done"}
    [pool] = manifest.pools
    # Three models and five items; on the test split, the best initial model alone.
    assert answers_made(place.cell(pool.name)) == {"iter_00": 15 + 5}
    for cell in manifest.cells:
        made = answers_made(place.cell(cell.name))
        assert "iter_00" not in made and made["iter_01"] > 0
        check_state(Run.open(place.cell(cell.name)))
        weights = place.cell(cell.name).iteration(0).adapters.glob("*/adapter_model.safetensors")
        assert all(file.stat().st_nlink > 2 for file in weights)
    assert "equal-seed1: done" in done.stdout
    assert done.stdout.index("sparta-seed0: done") < done.stdout.index("equal-seed0: done")

    table = json.loads(typed("study", place.root, "--table", "--json").stdout)
    rows = {row["levels"]["method"]: row for row in table["rows"]}
    assert rows["sparta"]["difference"] is None
    assert (rows["equal"]["seeds"], rows["equal"]["difference"]["seeds"]) == (["seed0", "seed1"], 2)
    assert rows["equal"]["tokens"] > 0
    means = [sum(row["scores"]) / 2 for row in rows.values()]
    assert [row["mean"] for row in rows.values()] == pytest.approx(means)
    differences = rows["equal"]["mean"] - rows["sparta"]["mean"]
    assert rows["equal"]["difference"]["difference"] == pytest.approx(differences)
    assert json.loads(place.table.read_text())["rows"] == table["rows"]

    before = {cell.name: place.result(cell.name).stat().st_mtime_ns for cell in manifest.cells}
    assert run(path).returncode == 0
    assert before == {cell.name: place.result(cell.name).stat().st_mtime_ns for cell in manifest.cells}
    status = typed("study", place.root, "--status", "--json")
    assert status.returncode == 0 and json.loads(status.stdout)["exit_code"] == 0
    assert typed("status", place.root).returncode == 0


def test_a_cell_fails_alone_and_the_same_command_heals_it(tmp_path: Path) -> None:
    axes = {"data": {"good": {}, "bad": {"data.train": "later.jsonl"}}}
    path = write_study(tmp_path, axes)
    said = sentence(run(path))
    assert "1 of 2 cells failed (bad)" in said and "--status" in said
    found = results(tmp_path / "study")
    assert found["good"].error == ""
    assert "its initial pool, m0-" in found["bad"].error and "later.jsonl" in found["bad"].error
    assert typed("study", tmp_path / "study", "--status").returncode == 1
    (tmp_path / "later.jsonl").write_text((tmp_path / "prompts.jsonl").read_text())
    healed = run(path)
    assert healed.returncode == 0, healed.stderr
    assert "good: done" not in healed.stdout and "bad: done" in healed.stdout


def test_a_cell_whose_base_run_is_missing_fails_with_its_sentence(tmp_path: Path) -> None:
    gone = {**BASELINE, "baseline.budget.like": "./nowhere"}
    path = write_study(tmp_path, {"method": {"sparta": {}, "equal": gone}})
    dry = run(path, "--dry-run")
    assert dry.returncode == 1 and "cannot begin: equal: baseline.budget.like: " in dry.stdout
    assert not (tmp_path / "study").exists()
    assert "1 of 2 cells failed (equal)" in sentence(run(path))
    found = results(tmp_path / "study")
    assert (found["sparta"].error, found["equal"].error.partition(":")[0]) == ("", "baseline.budget.like")


SLOW = {"engine": {"kind": "scripted", "scripted": {"delay": 0.05}}}
VERY_SLOW = {"engine": {"kind": "scripted", "scripted": {"delay": 1.0}}}


def working(place: Path, name: str) -> dict[str, Any] | None:
    """The note of the process that works on a cell, once its run has begun."""
    note = place / "running" / f"{name}.json"
    begun = (place / "cells" / name / "run.json").is_file()
    return json.loads(note.read_text()) if begun and note.is_file() else None


def test_a_killed_cell_is_started_again_and_a_killed_driver_s_cells_are_waited_for(
    tmp_path: Path, started: Launched
) -> None:
    path = write_study(tmp_path, {"seed": [0, 1]}, recipe=SLOW)
    place = tmp_path / "study"
    driver = started(path, "--state", place, "--limit", "2")
    wait_until(lambda: working(place, "seed0") and working(place, "seed1"))
    second = working(place, "seed1")
    assert second is not None
    driver.kill()
    driver.wait()
    first = working(place, "seed0")
    assert first is not None
    os.kill(first["process"]["pid"], signal.SIGKILL)
    driver = started(path, "--state", place, "--limit", "2")
    out, err = driver.communicate()
    assert driver.returncode == 0, err
    assert "1 cells of an earlier driver still run" in out
    assert {result.error for result in results(place).values()} == {""}


def test_a_killed_cell_server_stops_no_cell(tmp_path: Path, started: Launched) -> None:
    path = write_study(tmp_path, {"seed": [0, 1, 2]}, recipe=SLOW)
    place = tmp_path / "study"
    driver = started(path, "--state", place, "--limit", "2")
    wait_until(lambda: working(place, "seed0") and working(place, "seed1"))
    note = working(place, "seed0")
    assert note is not None
    server = int(Path(f"/proc/{note['process']['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    out, err = driver.communicate()
    assert driver.returncode == 0, err
    assert "starting it again" not in out
    assert {result.error for result in results(place).values()} == {""}


def test_cells_on_one_machine_get_different_gpus(tmp_path: Path, started: Launched) -> None:
    path = write_study(tmp_path, {"seed": [0, 1]}, recipe=SLOW, share=["adapters"])
    place = tmp_path / "study"
    refused = run(path, "--limit", 4, CUDA_VISIBLE_DEVICES="5,6,7")
    assert "limit is 4, and this machine has 3 GPUs" in sentence(refused)
    driver = started(path, "--state", place, CUDA_VISIBLE_DEVICES="5,6,7")
    wait_until(lambda: working(place, "seed0") and working(place, "seed1"))
    notes = [working(place, name) for name in ("seed0", "seed1")]
    assert [(note["share"], note["gpus"]) for note in notes if note] == [(1, ["5"]), (2, ["6", "7"])]
    _, err = driver.communicate()
    assert driver.returncode == 0, err


def test_an_interrupt_stops_the_cells_too_and_the_study_goes_on(tmp_path: Path, started: Launched) -> None:
    path = write_study(tmp_path, {"seed": [0]}, recipe=SLOW)
    place = tmp_path / "study"
    driver = started(path, "--state", place)
    wait_until(lambda: working(place, "seed0"))
    cell = working(place, "seed0")
    assert cell is not None
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate()
    assert driver.returncode == 130 and "continue with" in err
    assert not runs(cell["process"]["pid"])
    assert typed("study", place, "--status").returncode == 3
    assert run(path).returncode == 0


def test_cancel_stops_what_a_killed_driver_left(tmp_path: Path, started: Launched) -> None:
    path = write_study(tmp_path, {"seed": [0]}, recipe=VERY_SLOW)
    place = tmp_path / "study"
    driver = started(path, "--state", place)
    wait_until(lambda: working(place, "seed0"))
    assert "is being driven by" in sentence(typed("study", place, "--cancel"))
    driver.kill()
    driver.wait()
    cell = working(place, "seed0")
    assert cell is not None
    done = typed("study", place, "--cancel")
    assert done.returncode == 0 and "Stopped 1 running cells" in done.stdout, done.stderr
    wait_until(lambda: not runs(cell["process"]["pid"]))
    assert not results(place)
    assert json.loads(typed("study", place, "--status", "--json").stdout)["cells"][0]["state"] == "waiting"


def test_what_has_begun_keeps_its_settings_and_may_grow(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"match.alpha": [0.0, 1.0]})
    assert run(path).returncode == 0
    kept = (tmp_path / "study" / "results" / "alpha0.0.json").stat().st_mtime_ns

    rewritten(path, set={"match.k": 2})
    said = sentence(run(path))
    assert "began the cell alpha0.0 with other settings" in said and "match.k: 5, now 2" in said
    rewritten(path, set={}, recipe="toy")
    assert "with other settings" in sentence(run(path))
    rewritten(path, recipe="./recipe.yaml", axes={"match.alpha": [1.0]})
    assert "began the cell alpha0.0, which is no longer in its file" in sentence(run(path))

    rewritten(path, limit=1, axes={"match.alpha": [0.0, 0.5, 1.0]})
    grown = run(path)
    assert grown.returncode == 0, grown.stderr
    assert "alpha0.5: done" in grown.stdout and "alpha0.0: done" not in grown.stdout
    assert (tmp_path / "study" / "results" / "alpha0.0.json").stat().st_mtime_ns == kept

    rewritten(path, set={"iterations": 2})
    longer = run(path)
    assert longer.returncode == 0, longer.stderr
    assert StateDir(tmp_path / "study" / "cells" / "alpha0.0").last_committed() == 2
    rewritten(path, set={"iterations": 1})
    assert "iterations can only grow" in sentence(run(path))


def test_keep_removes_adapters_and_the_runs_still_verify(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0]}, recipe={"iterations": 3}, keep="chosen")
    assert run(path).returncode == 0
    cell = Run.open(StateDir(tmp_path / "study" / "cells" / "seed0"))
    check_state(cell)
    left = {
        f"{weights.parts[-4]}-{weights.parts[-2]}"
        for weights in cell.state.root.glob("iter_*/adapters/*/adapter_model.safetensors")
    }
    [choices] = results(tmp_path / "study")["seed0"].choices.values()
    assert left == {choice.checkpoint for choice in choices}
    assert "removed on purpose" in sentence(typed("launch", "--state", cell.state.root, "--iters", 4))
    # Scores are still there to be compared.
    assert run(path, "--table").returncode == 0


def test_a_search_compares_on_validation_and_no_cell_accesses_the_test_split(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"match.alpha": [0.0, 1.0]}, compare_on="validation")
    done = run(path)
    assert done.returncode == 0, done.stderr
    place = StudyDir(tmp_path / "study")
    manifest = read_manifest(place)
    assert not list(place.root.rglob("evals/own/test")) and not list(place.root.rglob("looks.jsonl"))
    table = json.loads(place.table.read_text())
    assert [row["split"] for row in table["rows"]] == ["validation", "validation"]
    for row, cell in zip(table["rows"], manifest.cells, strict=True):
        chosen = {choice.what: choice for choice in results(place.root)[cell.name].choices["own"]}
        assert row["scores"] == [chosen["best of all checkpoints"].validation]
    # The same cells on the test split: what is there stays, and only the chosen models answer it.
    rewritten(path, compare_on="test")
    tested = run(path)
    assert tested.returncode == 0, tested.stderr
    assert {row["split"] for row in json.loads(place.table.read_text())["rows"]} == {"test"}


def test_a_limit_of_no_gpus_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0]})
    assert "--limit is 0, and 0 GPUs run nothing" in sentence(typed("study", path, "--limit", 0))


def test_a_cell_that_is_wider_than_the_limit_is_refused(tmp_path: Path) -> None:
    wide = {"engine.kind": "vllm", "engine.vllm.tensor_parallel": 4}
    path = write_study(tmp_path, {"a": {"wide": wide}}, limit=2)
    assert "needs 4 GPUs for one task, and the study's limit is 2" in sentence(run(path))


def test_a_disk_that_fills_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0, 1]})
    fault = Fault(str(tmp_path / "study" / "cells"), "ENOSPC", 150, lasts=True)
    full = run(
        path,
        PYTHONPATH=os.pathsep.join([str(ROOT / "tests" / "chaos" / "site"), str(ROOT)]),
        SPARTA_CHAOS=json.dumps(asdict(fault)),
    )
    assert "2 of 2 cells failed" in sentence(full)
    for result in results(tmp_path / "study").values():
        assert "is full: free space and run the same command again" in result.error
    healed = run(path)
    assert healed.returncode == 0, healed.stderr


def test_a_cell_can_be_run_alone(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"seed": [0]})
    assert run(path).returncode == 0
    again = typed("study", tmp_path / "study", "--cell", "seed0")
    assert again.returncode == 0, again.stderr
    assert "has no cell seed7" in sentence(typed("study", tmp_path / "study", "--cell", "seed7"))
