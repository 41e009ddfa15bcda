"""Every method that aligns one model: in one process, in several, killed and resumed, in status and tables, with bad input."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from support.one_model_runs import CASES, ROWS, write_case
from support.openings import begin_or_continue, fork, planned
from support.scripted_run import Launched, advance, launches, manifests, typed

from sparta.commands.begin import check_state
from sparta.errors import SpartaError
from sparta.methods.registry import method_of
from sparta.recipes.load import load
from sparta.status.collect import status_of
from sparta.store.layout import StateDir
from sparta.store.run import Run

each = pytest.mark.parametrize("method", CASES)
POLL = 0.005
"""Seconds between checks of the files of a run to kill; checking without a pause would slow it down."""


def played(folder: Path, method: str, last: int = 2, place: str = "state", **changes: object) -> Run:
    """A run of the method's case in folder/place, made here up to iteration `last`."""
    run = begin_or_continue(StateDir(folder / place), load(write_case(folder, method, **changes)))
    for t in range(1, last + 1):
        advance(run, t)
    return run


def refused(folder: Path, method: str, *settings: str, **changes: object) -> str:
    """The error of a launch that must begin nothing."""
    with pytest.raises(SpartaError) as error:
        begin_or_continue(StateDir(folder / "state"), load(write_case(folder, method, **changes), settings))
    assert not (folder / "state").exists()
    return str(error.value)


@pytest.fixture(scope="module", params=CASES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An undisturbed run of each method."""
    return played(tmp_path_factory.mktemp(request.param), request.param)


def test_one_member_learns_and_the_others_are_carried_over_unchanged(whole: Run) -> None:
    pools = [whole.pool(t) for t in range(3)]
    assert list(pools[2]) == ["model0", "model1", "model2"]
    for name in ("model0", "model2"):
        assert pools[0][name] == pools[1][name] == pools[2][name]
    assert len({pool["model1"].sha256 for pool in pools}) == 3


def test_all_its_rows_are_committed_and_whole(whole: Run) -> None:
    rows = json.loads(whole.iteration(2).manifest.read_text())["rows"]
    assert set(rows) == set(ROWS[whole.recipe.method])
    assert all(entry["count"] > 0 for entry in rows.values())
    check_state(whole)


def test_a_row_that_was_edited_after_the_commit_is_named(whole: Run, tmp_path: Path) -> None:
    for folder in ROWS[whole.recipe.method]:
        copy = StateDir(tmp_path / folder)
        shutil.copytree(whole.state.root, copy.root)
        shard = next(
            path for path in (copy.iteration(2).root / folder).glob("*.jsonl") if path.stat().st_size
        )
        first, *rest = shard.read_text().splitlines(keepends=True)
        row = json.loads(first)
        number = next(name for name, value in row.items() if type(value) is int)
        shard.write_text("".join([json.dumps({**row, number: row[number] + 1}) + "\n", *rest]))
        with pytest.raises(SpartaError, match=folder):
            check_state(Run.open(copy))


def test_it_shows_in_the_plan_in_the_table_and_in_the_status(whole: Run) -> None:
    method = method_of(whole.recipe)
    work = method.work(whole)
    assert work.tokens > 0 and work.updates > 0 and work.what[0] == "8 prompts"
    summary = method.summary(whole, 2)
    assert [row[0] for row in summary.rows] == ["model1"]
    assert all(len(row) == len(summary.columns) for row in summary.rows)
    assert "8 prompts" in summary.notes[0]
    status = status_of(whole)
    assert status.state == "done" and status.standing == {}
    assert status.tokens.generated > 0
    for entry in status.iterations:
        assert all(phase.done == phase.total for phase in entry.phases), entry
        assert entry.pairs > 0


@each
def test_in_processes_of_its_own_it_commits_the_same_bytes(method: str, tmp_path: Path) -> None:
    here = played(tmp_path, method, last=1, place="here", combats=4, iterations=1)
    recipe = write_case(tmp_path, method, combats=4, iterations=1)
    # Each task of sppo loads PyTorch for its preference model. That its rows may lie in several shards is tested by killing it.
    tasks = 1 if method == "sppo" else 2
    where = ("--cluster", "local", "--set", "cluster.at_once=2", "--set", f"cluster.tasks={tasks}")
    made = typed("launch", "--recipe", recipe, "--state", tmp_path / "state", *where)
    assert made.returncode == 0, made.stderr
    assert manifests(tmp_path / "state") == manifests(here.state.root)


@pytest.fixture
def launched() -> Iterator[Launched]:
    with launches() as start:
        yield start


@each
def test_killed_at_three_places_or_more_it_commits_the_same_bytes(
    method: str, tmp_path: Path, launched: Launched
) -> None:
    """While rows of each phase with an engine are written, when the preference pairs exist, and while the second iteration is sampled."""
    undisturbed = played(tmp_path, method, place="here", combats=6)
    recipe = write_case(tmp_path, method, combats=6)
    state = StateDir(tmp_path / "state")
    first, second = state.iteration(1), state.iteration(2)
    slowly = ("--recipe", recipe, "--state", state.root, "--set", "engine.scripted.delay=0.02")
    places = [partial(_has_rows, first.root / folder) for folder in ROWS[method][:-1]]
    places += [first.preferences.exists, partial(_has_rows, second.root / "candidates")]
    assert len(places) >= 3
    for reached in places:
        process = launched(*slowly)
        while process.poll() is None and not reached():
            time.sleep(POLL)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and reached()
    assert not second.manifest.exists()
    run = begin_or_continue(state, load(recipe))
    for t in range(run.state.next_iteration(), 3):
        advance(run, t)
    assert manifests(state.root) == manifests(undisturbed.state.root)
    kinds = method_of(run.recipe).row_types(run)
    for folder in (iteration.root / name for iteration in (first, second) for name in ROWS[method]):
        keys = [msgspec.json.decode(line, type=kinds[folder.name]).key for line in _rows(folder)]
        assert set(Counter(keys).values()) == {1}, "no row was made twice"


def _has_rows(folder: Path) -> bool:
    return _lines(folder) >= 3


def _lines(folder: Path) -> int:
    return len(_rows(folder))


def _rows(folder: Path) -> list[str]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_a_state_begun_with_another_method_is_refused(whole: Run) -> None:
    other = whole.recipe.model_copy(update={"method": "sparta"})
    with pytest.raises(SpartaError, match=f"method: {whole.recipe.method}, now sparta"):
        begin_or_continue(whole.state, other)


@each
def test_the_model_that_learns_must_be_a_member_and_named_where_there_are_several(
    method: str, tmp_path: Path
) -> None:
    wrong = refused(tmp_path, method, "baseline.start=modle1")
    assert "baseline.start is modle1" in wrong and "did you mean model1" in wrong
    none = refused(tmp_path, method, "baseline.start=null")
    assert "aligns one model, but the pool has 3" in none and "best: true" in none


@each
def test_a_pool_of_one_needs_no_name(method: str, tmp_path: Path) -> None:
    recipe = load(write_case(tmp_path, method, models=1), ["baseline.start=null"])
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe)
    advance(run, 1)
    assert [path.name for path in run.iteration(1).adapters.iterdir()] == ["model0"]


def test_a_method_that_needs_three_refuses_a_pool_of_one(tmp_path: Path) -> None:
    said = refused(tmp_path, "self_rewarding", "method=sparta", models=1)
    assert "the pool has 1 model, but the method sparta needs at least 3" in said


def test_one_candidate_is_too_few(tmp_path: Path) -> None:
    said = refused(tmp_path, "self_rewarding", "baseline.candidates=1")
    assert "baseline.candidates is 1" in said and "at least 2" in said


def test_a_judge_that_is_mostly_unreadable_stops_the_run(tmp_path: Path) -> None:
    engine = {"kind": "scripted", "scripted": {"unreadable": {"model1": 0.95}}}
    with pytest.raises(SpartaError) as error:
        played(tmp_path, "self_rewarding", engine=engine)
    assert "judgements of model1 could not be read" in str(error.value)
    assert "I would rather not say" in str(error.value) and "judging.max_missing=" in str(error.value)


def test_a_branch_keeps_the_method_unless_it_begins_at_the_initial_pool(tmp_path: Path) -> None:
    parent = played(tmp_path, "self_rewarding", last=1)
    other = parent.recipe.model_copy(update={"method": "sparta"})
    with pytest.raises(SpartaError, match=r"keep the method of its parent, self_rewarding.*iter_00"):
        fork(parent.state, 1, StateDir(tmp_path / "late"), other)
    advance(fork(parent.state, 0, StateDir(tmp_path / "early"), other), 1)
    again = fork(parent.state, 1, StateDir(tmp_path / "again"), None)
    advance(again, 2)
    assert len(manifests(again.state.root)) == 3


def test_the_command_names_a_method_for_short(tmp_path: Path) -> None:
    recipe = write_case(tmp_path, "self_rewarding")
    dry = typed(
        "launch", "--recipe", recipe, "--method", "self_rewardin", "--state", tmp_path / "s", "--dry-run"
    )
    assert dry.returncode == 1 and "did you mean self_rewarding?" in dry.stderr
    dry = typed("launch", "--recipe", recipe, "--method", "sparta", "--state", tmp_path / "s", "--dry-run")
    assert dry.returncode == 0 and "8 combats" in dry.stdout, dry.stderr


def test_what_is_planned_is_what_a_dry_run_shows(tmp_path: Path) -> None:
    run = planned(StateDir(tmp_path / "state"), load(write_case(tmp_path, "self_rewarding")))
    assert method_of(run.recipe).work(run).what == (
        "8 prompts",
        "32 candidates",
        "up to 96 judgements",
        "1 training of up to 8 pairs",
    )


@pytest.mark.parametrize("method", ["self_rewarding", "meta_rewarding"])
def test_sampling_and_judging_in_one_array_makes_the_same_bytes(method: str, tmp_path: Path) -> None:
    apart = played(tmp_path, method, place="apart")
    recipe = load(write_case(tmp_path, method), ["cluster.fused=true"])
    assert [phase.name for phase in method_of(recipe).iteration(recipe)][:2] == ["draw", "sample_assess"]
    run = begin_or_continue(StateDir(tmp_path / "fused"), recipe)
    for t in (1, 2):
        advance(run, t)
    assert manifests(run.state.root) == manifests(apart.state.root)
    status = status_of(run)
    assert all(phase.done == phase.total for entry in status.iterations for phase in entry.phases)


@pytest.mark.parametrize(("kind", "phase"), [("vllm", "sample_assess"), ("hf", "sample")])
def test_where_tasks_start_vllm_one_array_is_the_default(kind: str, phase: str) -> None:
    recipe = load("toy/self_rewarding", [f"engine.kind={kind}", "cluster.kind=local"])
    assert method_of(recipe).iteration(recipe)[1].name == phase


def test_a_run_may_change_between_one_array_and_two_in_the_midst_of_an_iteration(
    tmp_path: Path, launched: Launched
) -> None:
    apart = played(tmp_path, "self_rewarding", place="apart", last=1, iterations=1)
    recipe = write_case(tmp_path, "self_rewarding", iterations=1)
    state = StateDir(tmp_path / "state")
    slowly = ("--set", "engine.scripted.delay=0.02", "--set", "cluster.fused=true")
    process = launched("--recipe", recipe, "--state", state.root, *slowly)
    while process.poll() is None and _lines(state.iteration(1).root / "judgements") < 3:
        time.sleep(POLL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not state.iteration(1).manifest.exists()
    advance(begin_or_continue(state, load(recipe)), 1)
    assert manifests(state.root) == manifests(apart.state.root)


def test_a_judge_that_does_not_sample_votes_once(tmp_path: Path) -> None:
    recipe = load(write_case(tmp_path, "self_rewarding"), ["judging.mode=expected", "baseline.rounds=5"])
    run = begin_or_continue(StateDir(tmp_path / "state"), recipe)
    advance(run, 1)
    rounds = {json.loads(line)["round"] for line in _rows(run.iteration(1).root / "judgements")}
    assert rounds == {0}


def test_judge_prompts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match=r"prompts of \d+ of them did not fit engine.context_length, 300"):
        played(tmp_path, "meta_rewarding", engine={"kind": "scripted", "context_length": 300})
