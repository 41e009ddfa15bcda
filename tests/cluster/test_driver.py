"""The driver assigns missing keys until none is missing, stops at non-retryable errors, and loses nothing when it is killed."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.scripted_run import (
    DEADLINE,
    Launched,
    Silent,
    advance,
    begin,
    manifests,
    rows_on_disk,
    wait_until,
    write_recipe,
)

from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.cluster.driver import Driver
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.cluster.sharding import shard_items
from sparta.errors import SpartaError
from sparta.phases.base import RowPhase
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.train import Train
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import LineCounter

PHASES: tuple[RowPhase, ...] = (Generate(), Judge(), Train())


def slowly(delay: float, **cluster: object) -> dict[str, object]:
    return {
        "engine": {"kind": "scripted", "scripted": {"delay": delay}},
        "cluster": {"kind": "local", **cluster},
    }


def no_key_twice(run: Run, last: int) -> None:
    """Every row was computed exactly once."""
    for t in range(1, last + 1):
        for phase in PHASES:
            counts = Counter(rows_on_disk(run, phase, t))
            assert set(counts) == {item.key for item in phase.work(run, t)}
            assert set(counts.values()) == {1}, f"{phase.name} of iteration {t}"


def records(run: Run, phase: RowPhase, t: int = 1) -> list[TaskRecord]:
    attempts = AttemptDir(run, phase, t)
    return [record for attempt in attempts.all() for record in attempts.records(attempt)]


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_non_retryable_error_stops_at_once(kind: str, tmp_path: Path) -> None:
    run = begin(tmp_path, combats=4)
    advance(run, 1, upto="merge")
    (run.iteration(0).adapter("model3") / "adapter_model.safetensors").unlink()
    launcher = Inline(run) if kind == "inline" else Local(run)
    with pytest.raises(SpartaError, match="adapter that model3 starts from is incomplete"):
        Driver(run, launcher, Silent(), lambda: None).complete(Train(), 1)
    assert len(AttemptDir(run, Train(), 1).all()) == 1


def test_a_driver_that_lost_its_lock_assigns_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")

    def lost() -> None:
        raise SpartaError("the lock was taken over")

    with pytest.raises(SpartaError, match="taken over"):
        Driver(run, Inline(run), Silent(), lost).complete(Generate(), 1)
    assert AttemptDir(run, Generate(), 1).all() == []


def test_a_complete_phase_is_not_assigned(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    for phase in (*PHASES, Merge()):
        Driver(run, Inline(run), Silent(), lambda: None).complete(phase, 1)
        assert len(AttemptDir(run, phase, 1).all()) == 1


def test_the_rest_of_a_killed_task_is_assigned_again(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, combats=8, iterations=1, **slowly(0.12, tasks=2, at_once=2))
    driver = launched("--recipe", recipe, "--state", tmp_path / "state")
    state = StateDir(tmp_path / "state")
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= 3)
    run = Run.open(state)
    os.kill(records(run, Generate())[0].process.pid, signal.SIGKILL)
    out, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err
    assert "items are missing (killed); assigning them again" in out
    first, second = AttemptDir(run, Generate(), 1).all()
    assert (first.items, second.number) == (16, 1) and 0 < second.items < 12
    no_key_twice(run, 1)


def test_attempts_without_results_end_with_the_last_lines_of_the_log(
    tmp_path: Path, launched: Launched
) -> None:
    """Every task's process dies as it starts, as with a broken driver or a node without memory."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'submitit.core._submit' in sys.orig_argv:\n"
        "    print('no such device', flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    recipe = write_recipe(tmp_path, cluster={"kind": "local", "max_attempts": 2, "at_once": 1})
    driver = launched("--recipe", recipe, "--state", tmp_path / "state", PYTHONPATH=str(broken))
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 1
    assert "generate of iteration 1: 24 of its items are missing after 2 attempts (" in err
    assert "\n  no such device\n" in err and "Traceback" not in err
    assert len(AttemptDir(Run.open(StateDir(tmp_path / "state")), Generate(), 1).all()) == 2


def launch_and_kill_the_driver(
    launched: Launched, arguments: tuple[object, ...], state: StateDir, rows: int
) -> None:
    """A driver that dies as soon as its tasks have written that many responses; the tasks survive it."""
    driver = launched(*arguments)
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= rows)
    driver.kill()
    driver.wait()


def test_tasks_that_outlive_a_killed_driver_are_waited_for(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, combats=16, iterations=1, **slowly(0.5, tasks=2, at_once=2))
    arguments = ("--recipe", recipe, "--state", tmp_path / "state")
    state = StateDir(tmp_path / "state")
    launch_and_kill_the_driver(launched, arguments, state, rows=4)
    again = launched(*arguments, "--set", "engine.scripted.delay=0")
    out, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert "Taking over the lock" in out
    assert "generate: tasks of an earlier launch are still running, waiting for them" in out
    run = Run.open(state)
    no_key_twice(run, 1)
    assert len(AttemptDir(run, Generate(), 1).all()) == 1


def test_a_driver_with_another_launcher_waits_for_them_too(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, combats=8, iterations=1, **slowly(0.5, tasks=1, at_once=1))
    arguments = ("--recipe", recipe, "--state", tmp_path / "state")
    state = StateDir(tmp_path / "state")
    launch_and_kill_the_driver(launched, arguments, state, rows=2)
    again = launched(*arguments, "--cluster", "inline", "--set", "engine.scripted.delay=0")
    out, err = again.communicate(timeout=DEADLINE)
    assert again.returncode == 0, err
    assert "waiting for them" in out
    no_key_twice(Run.open(state), 1)


@pytest.mark.parametrize("begun", [True, False])
def test_a_task_of_an_alternative_that_appears_during_assignment_does_the_work_or_leaves_it(
    begun: bool, tmp_path: Path
) -> None:
    """Its driver, which used the fused phase, was killed while starting it."""
    run = begin(tmp_path, combats=6, **slowly(0.1))
    advance(run, 1, upto="plan")
    combat, view = AttemptDir(run, CombatAndJudge(), 1), Silent()

    def appears() -> None:
        """Between the driver's look for such tasks and its dealing."""
        if not combat.all():
            attempt = combat.assign([CombatAndJudge().missing(run, 1)], "local")
            Local(run).start(combat, attempt, lambda _: None)
            wait_until(lambda: not begun or rows_on_disk(run, Generate(), 1))

    driver = Driver(run, Inline(run), view, appears)
    for phase in (Generate(), Judge()):
        driver.complete(phase, 1)
    assert "combat+judge: tasks of an earlier launch are still running, waiting for them" in view.said
    [record] = combat.records(combat.all()[0])
    assert record.outcome == ("done" if begun else "failed")
    for phase in (Generate(), Judge()):
        counts = Counter(rows_on_disk(run, phase, 1))
        assert set(counts) == {item.key for item in phase.work(run, 1)} and set(counts.values()) == {1}


def test_tasks_are_waited_for_even_when_submitits_own_process_was_killed(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, combats=8, iterations=1, **slowly(0.5, tasks=1, at_once=1))
    driver = launched("--recipe", recipe, "--state", tmp_path / "state")
    state = StateDir(tmp_path / "state")
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= 2)
    run = Run.open(state)
    [record] = records(run, Generate())
    parent = int(Path(f"/proc/{record.process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != driver.pid
    os.kill(parent, signal.SIGKILL)
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err
    no_key_twice(run, 1)
    assert len(AttemptDir(run, Generate(), 1).all()) == 1


def test_no_more_tasks_run_together_than_allowed(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, models=5, iterations=1, **slowly(0.05, tasks=4, at_once=2))
    driver = launched("--recipe", recipe, "--state", tmp_path / "state")
    state = StateDir(tmp_path / "state")
    most = 0

    def ended() -> bool:
        nonlocal most
        time.sleep(0.05)
        if state.run_json.is_file():
            run = Run.open(state)
            most = max(most, sum(record.alive for phase in PHASES[:2] for record in records(run, phase)))
        return driver.poll() is not None

    wait_until(ended)
    assert driver.returncode == 0
    # Records are read one after another: a task that ends meanwhile and the one that follows it can both look alive.
    assert most >= 2
    run = Run.open(state)
    assert AttemptDir(run, Generate(), 1).all()[0].shards == 4
    for phase in PHASES[:2]:
        spans = [(record.started, record.ended or 0.0) for record in records(run, phase)]
        assert max(sum(begin <= start < end for begin, end in spans) for start, _ in spans) <= 2


def test_local_and_inline_commit_the_same(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, iterations=1)
    runs = [
        launched("--recipe", recipe, "--state", tmp_path / "inline"),
        launched(
            "--recipe",
            recipe,
            "--state",
            tmp_path / "local",
            "--cluster",
            "local",
            "--set",
            "cluster.tasks=3",
        ),
    ]
    for run in runs:
        _, err = run.communicate(timeout=DEADLINE)
        assert run.returncode == 0, err
    assert manifests(tmp_path / "inline") == manifests(tmp_path / "local")
    assert len(manifests(tmp_path / "local")) == 2


def test_interrupted_tasks_end_whether_they_have_begun_or_not(tmp_path: Path) -> None:
    run = begin(tmp_path, **slowly(0.2, tasks=3, at_once=2))
    advance(run, 1, upto="plan")
    for begun in (True, False):
        attempts, launcher = AttemptDir(run, Generate(), 1), Local(run)
        attempt = attempts.assign(
            shard_items(Generate().missing(run, 1), launcher.tasks(Generate())), launcher.name
        )
        launcher.start(attempts, attempt, lambda _: None)
        if begun:
            wait_until(lambda: len(attempts.records(attempt)) == 2)  # noqa: B023
        launcher.interrupted(attempts, attempt)
        wait_until(lambda: not launcher.running(attempts, attempt))  # noqa: B023
        assert {record.outcome for record in attempts.records(attempt)} <= {"failed"}
    assert len(rows_on_disk(run, Generate(), 1)) < 10
