"""A driver whose lock another one has taken stops within seconds and writes nothing more, wherever it was and wherever its tasks run."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import (
    DEADLINE,
    Launched,
    Silent,
    advance,
    begin,
    manifests,
    typed,
    wait_until,
    write_recipe,
)

from sparta.cluster.account import measure
from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import Driver
from sparta.cluster.inline import Inline
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases.generate import Generate
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.failure import note_failure
from sparta.store.layout import StateDir
from sparta.store.lock import LockLost, RunLock, holder
from sparta.store.run import Run
from sparta.store.shards import LineCounter, ShardWriter, shard_files

SECONDS_TO_STOP = 6.0
"""What a driver may go on for: it looks every two seconds, and this host is busy."""


def content(state: StateDir) -> dict[str, bytes]:
    """Every file of the state, the lock's own apart."""
    return {
        str(path.relative_to(state.root)): path.read_bytes()
        for path in sorted(state.root.rglob("*"))
        if path.is_file() and state.lock not in path.parents
    }


@contextmanager
def taken_over(state: StateDir) -> Iterator[RunLock]:
    """Its lock in the hands of this process, as of one on another host to which the holder was silent for minutes."""
    lock, give_up = RunLock(state, print), time.monotonic() + DEADLINE
    while True:
        now = holder(state)
        assert now is not None and time.monotonic() < give_up
        path = state.lock / f"{now.claim.token}.json"
        files.write_json(path, msgspec.structs.replace(now.claim, machine="elsewhere"))
        os.utime(path, (0, 0))
        try:
            lock.__enter__()
            break
        except SpartaError:  # it gave a sign of life at this very moment
            continue
    try:
        yield lock
    finally:
        lock.__exit__(None, None, None)


def assert_told(process: "subprocess.Popen[str]") -> None:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, (out, err)
    assert err.count("error: ") == 1 and f"was taken over by process {os.getpid()} on" in err, err
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_driver_that_lost_its_lock_and_its_tasks_stop_within_seconds(
    kind: str, tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(
        tmp_path, combats=150, iterations=1, cluster={"kind": kind, "tasks": 2, "at_once": 2}
    )
    state = StateDir(tmp_path / "state")
    driver = launched("--recipe", recipe, "--state", state.root, "--set", "engine.scripted.delay=0.2")
    counter, rows = LineCounter(state.iteration(1).responses), 0

    def under_way() -> bool:
        nonlocal rows
        rows += counter.fresh()
        return rows >= 10

    wait_until(under_way)
    with taken_over(state) as lock:
        time.sleep(SECONDS_TO_STOP)
        before = content(state)
        assert_told(driver)
        time.sleep(1)
        assert content(state) == before
        lock.check()
        assert not (state.jobs / "failure.json").exists(), "the run is another driver's now"
        run = Run.open(state)
        attempts = AttemptDir(run, Generate(), 1)
        [attempt] = attempts.all()
        assert not any(record.alive for record in attempts.records(attempt) if kind == "local")
    done = typed("launch", "--state", state.root, "--set", "engine.scripted.delay=0")
    assert done.returncode == 0, done.stderr
    calm = typed("launch", "--recipe", recipe, "--state", tmp_path / "calm", "--cluster", "inline")
    assert calm.returncode == 0, calm.stderr
    assert manifests(state.root) == manifests(tmp_path / "calm")


def suspended(tmp_path: Path, launched: Launched, kind: str) -> "tuple[subprocess.Popen[str], StateDir]":
    """A driver that was stopped amid generating, and whose lock another one has had since."""
    recipe = write_recipe(
        tmp_path, combats=60, iterations=1, cluster={"kind": kind, "tasks": 2, "at_once": 2}
    )
    state = StateDir(tmp_path / "state")
    driver = launched("--recipe", recipe, "--state", state.root, "--set", "engine.scripted.delay=0.3")
    counter = LineCounter(state.iteration(1).responses)
    wait_until(lambda: counter.fresh() > 0)
    os.kill(driver.pid, signal.SIGSTOP)
    with taken_over(state):
        pass
    return driver, state


def finish(state: StateDir) -> None:
    done = typed("launch", "--state", state.root, "--set", "engine.scripted.delay=0", "--cluster", "inline")
    assert done.returncode == 0, done.stderr
    assert state.committed() == [0, 1]


def test_a_driver_that_was_suspended_while_another_finished_the_run_changes_nothing_of_it(
    tmp_path: Path, launched: Launched
) -> None:
    driver, state = suspended(tmp_path, launched, "inline")
    finish(state)
    before = content(state)
    os.kill(driver.pid, signal.SIGCONT)
    out, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 1 and "was taken over" in err and "Traceback" not in err, (out, err)
    assert content(state) == before
    assert typed("launch", "--state", state.root).returncode == 0, "what was committed holds"


def test_tasks_of_a_machine_that_the_next_driver_cannot_see_stop_soon_after_their_work_was_dealt_out_again(
    tmp_path: Path, launched: Launched
) -> None:
    driver, state = suspended(tmp_path, launched, "local")
    attempts = AttemptDir(Run.open(state), Generate(), 1)
    [attempt] = attempts.all()
    tasks = [record.process.pid for record in attempts.records(attempt)]
    for record in attempts.records(attempt):
        elsewhere = msgspec.structs.replace(record.process, machine="elsewhere")
        path = attempts.record_file(attempt.number, record.shard)
        files.write_json(path, msgspec.structs.replace(record, process=elsewhere))
    for path in attempts.folder.glob("*.process"):
        path.unlink()
    finish(state)
    wait_until(
        lambda: (
            not any(
                Path(f"/proc/{pid}/cmdline").is_file() and Path(f"/proc/{pid}/cmdline").read_bytes()
                for pid in tasks
            )
        )
    )
    for record in attempts.records(attempt):
        assert record.outcome == "failed" and "assigned again, in attempt 1" in (record.said or "")
    before = content(state)
    os.kill(driver.pid, signal.SIGCONT)
    driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 1
    assert content(state) == before
    assert typed("launch", "--state", state.root).returncode == 0, "what was committed holds"


# --- nothing that comes right before a write is forgotten


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    """A run whose iteration 1 is made up to the phase named, and whose lock this process has just lost."""
    locks: list[RunLock] = []

    def make(upto: str) -> Run:
        run = begin(tmp_path)
        mine = RunLock(run.state, print)
        mine.__enter__()
        locks.append(mine)
        if upto:
            advance(run, 1, upto=upto)
        successor = taken_over(run.state)
        successor.__enter__()
        successors.append(successor)
        return run

    successors: list[object] = []
    yield make
    for successor in successors:
        successor.__exit__(None, None, None)  # type: ignore[attr-defined]
    for lock in locks:
        lock.__exit__(None, None, None)


NEXT = {
    "": "plan",
    "plan": "generate",
    "generate": "judge",
    "judge": "merge",
    "merge": "train",
    "train": "commit",
}


@pytest.mark.parametrize("upto", NEXT)
def test_no_phase_writes_without_the_lock(upto: str, lost: Callable[[str], Run]) -> None:
    run = lost(upto)
    [phase] = [phase for phase in phases_of(run.recipe, 1) if phase.name == NEXT[upto]]
    before = content(run.state)
    keys = [item.key for item in phase.work(run, 1)]
    with pytest.raises(LockLost):
        phase.perform(run, 1, keys, 7, 0, lambda items: None)
    assert content(run.state) == before


def test_nothing_else_is_written_without_the_lock(lost: Callable[[str], Run]) -> None:
    run = lost("merge")
    before = content(run.state)
    driver = Driver(run, Inline(run), Silent(), lambda: None)
    [train] = [phase for phase in phases_of(run.recipe, 1) if phase.name == "train"]
    for write in (
        lambda: driver.complete(train, 1),
        lambda: measure(run, phases_of(run.recipe, 1), 1),
        lambda: run.refreeze(adjust(run.recipe, ["iterations=9"])),
        lambda: note_failure(run.state, "something"),
        run.save,
    ):
        with pytest.raises(LockLost):
            write()
    assert content(run.state) == before


def test_no_row_is_written_without_the_lock(tmp_path: Path) -> None:
    """The writer was opened while the lock was held."""
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    folder = run.iteration(1).responses
    [row, *_] = files.read_rows(shard_files(folder)[0], Generate.rows)
    with RunLock(run.state, print), ShardWriter(folder, 5, 0) as writer:
        writer.write(row)
        with taken_over(run.state):
            size = writer.path.stat().st_size
            with pytest.raises(LockLost):
                writer.write(row)
            assert writer.path.stat().st_size == size


def test_tasks_in_processes_of_their_own_need_no_lock(tmp_path: Path) -> None:
    """They are to outlive their driver, and hold none."""
    run = begin(tmp_path)
    (tmp_path / "other").mkdir()
    other = begin(tmp_path / "other")
    with RunLock(run.state, print), taken_over(run.state):
        advance(other, 1)
        with pytest.raises(LockLost):
            run.save()
    advance(run, 1)
