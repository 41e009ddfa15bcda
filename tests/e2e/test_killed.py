"""Killed at any moment and started again, a run ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted_run import Launched, committed, manifests, rows_on_disk, typed, write_recipe

from sparta.phases.base import RowPhase
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.phases.train import Train
from sparta.store.layout import StateDir
from sparta.store.run import Run

PHASES: tuple[RowPhase, ...] = (Generate(), Judge(), Train())
SLOWLY = "engine.scripted.delay=0.03"
AT_ONCE = "engine.scripted.delay=0"
ALIKE = {"kind": "scripted", "scripted": {"equal": 0.3}}
"""Some combats have nothing to judge: how many votes there are shows as responses come."""


def undisturbed(recipe: Path, state: Path) -> dict[str, bytes]:
    done = typed("launch", "--recipe", recipe, "--state", state)
    assert done.returncode == 0, done.stderr
    return manifests(state)


def files_in(state: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(state))


def wait_for_a_moment(process: "subprocess.Popen[str]", state: Path, stream: random.Random) -> str:
    """Either some time, most of which passes between two rows, or a number of new files, which is when something is being written."""
    before, began = files_in(state), time.monotonic()
    new, seconds = stream.randint(1, 25), stream.uniform(0.3, 1.2)
    by_files = stream.random() < 0.6
    while process.poll() is None and time.monotonic() - began < 4:
        if files_in(state) - before >= new if by_files else time.monotonic() - began > seconds:
            break
        time.sleep(0.0005)
    return f"{new} new files" if by_files else f"{seconds:.2f} s"


def kill_and_restart(
    start: Callable[[], "subprocess.Popen[str]"],
    state: Path,
    times: int,
    seed: int,
    kill: Callable[["subprocess.Popen[str]"], None],
) -> list[str]:
    """Start and kill so many times; the moments, for the message of a test that fails."""
    stream, moments = random.Random(seed), []
    for _ in range(times):
        process = start()
        moments.append(wait_for_a_moment(process, state, stream))
        if process.poll() is None:
            kill(process)
            process.wait()
        else:
            assert process.returncode == 0, process.communicate()[1]
    return moments


def kill_all(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_driver(process: "subprocess.Popen[str]") -> None:
    process.kill()


def test_killed_ten_times_a_run_commits_what_an_undisturbed_one_does(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, engine=ALIKE)
    state = tmp_path / "state"
    moments = kill_and_restart(
        lambda: launched("--recipe", recipe, "--state", state, "--set", SLOWLY),
        state,
        10,
        seed=2,
        kill=kill_all,
    )
    last = typed("launch", "--recipe", recipe, "--state", state, "--set", AT_ONCE)
    assert last.returncode == 0, (moments, last.stderr)
    assert manifests(state) == undisturbed(recipe, tmp_path / "undisturbed"), moments
    run = Run.open(StateDir(state))
    for t in (1, 2, 3):
        for phase in PHASES:
            assert set(Counter(rows_on_disk(run, phase, t)).values()) == {1}, "no key was computed twice"
    assert typed("launch", "--state", state).returncode == 0, "what was committed holds"


def test_killed_at_its_very_beginning_a_run_begins_again(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path)
    state = tmp_path / "state"
    for new in range(1, 13, 2):
        process = launched("--recipe", recipe, "--state", state, "--set", SLOWLY)
        while process.poll() is None and files_in(state) < new:
            time.sleep(0.0002)
        kill_all(process)
        process.wait()
    last = typed("launch", "--recipe", recipe, "--state", state, "--set", AT_ONCE)
    assert last.returncode == 0, last.stderr
    assert manifests(state) == undisturbed(recipe, tmp_path / "undisturbed")


@pytest.mark.parametrize("kill", [kill_driver, kill_all])
def test_killed_five_times_a_local_run_commits_the_same(
    kill: Callable[["subprocess.Popen[str]"], None], tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(
        tmp_path, iterations=2, engine=ALIKE, cluster={"kind": "local", "tasks": 2, "at_once": 2}
    )
    state = tmp_path / "state"
    moments = kill_and_restart(
        lambda: launched("--recipe", recipe, "--state", state, "--set", SLOWLY), state, 5, seed=5, kill=kill
    )
    last = typed("launch", "--recipe", recipe, "--state", state, "--set", AT_ONCE)
    assert last.returncode == 0, (moments, last.stderr)
    assert manifests(state) == undisturbed_inline(recipe, tmp_path / "undisturbed"), moments
    run = Run.open(StateDir(state))
    for t in (1, 2):
        for phase in PHASES:
            assert set(Counter(rows_on_disk(run, phase, t)).values()) == {1}, "no key was computed twice"


def undisturbed_inline(recipe: Path, state: Path) -> dict[str, bytes]:
    done = typed("launch", "--recipe", recipe, "--state", state, "--cluster", "inline")
    assert done.returncode == 0, done.stderr
    return manifests(state)


def test_a_fork_killed_while_it_is_made_is_finished_by_the_same_command(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path)
    whole = undisturbed(recipe, tmp_path / "state")
    before = committed(tmp_path / "state")
    arguments = ("--resume", tmp_path / "state" / "iter_02", "--fork", tmp_path / "branch")
    kill_and_restart(lambda: launched(*arguments), tmp_path / "branch", 4, seed=1, kill=kill_all)
    last = typed("launch", *arguments)
    assert last.returncode == 0, last.stderr
    assert manifests(tmp_path / "branch") == whole
    assert committed(tmp_path / "state") == before


def test_killed_while_going_back_a_run_is_whole(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path)
    state = tmp_path / "state"
    whole = undisturbed(recipe, state)
    for delay in (0.0, 0.001, 0.003):
        process = launched("--resume", state / "iter_00")
        while process.poll() is None and not (state / "superseded").exists():
            time.sleep(0.0002)
        time.sleep(delay)
        kill_all(process)
        process.wait()
        again = typed("launch", "--state", state)
        assert again.returncode == 0, again.stderr
        assert manifests(state) == whole
        (state / "superseded").rename(tmp_path / f"superseded-{delay}")
