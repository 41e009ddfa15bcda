"""What happens to tasks on a real cluster: preempted, killed, cancelled, out of time, on a node that dies or spoils everything."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, ROOT, Launched, manifests, quiet, typed, wait_until, write_recipe
from support.slurm_runs import (
    PHASES,
    HeldBack,
    assert_undisturbed,
    at_work,
    done_twice,
    ended,
    gone,
    path_with,
    preempt,
    queue,
    records,
    scene,
    undisturbed,
    variant,
)

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.job_ids import jobs_of
from sparta.phases.base import RowPhase
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.files import read_json
from sparta.store.layout import StateDir
from sparta.store.process import ProcessId, lives
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def slowly(delay: float) -> dict[str, object]:
    return {"kind": "scripted", "scripted": {"delay": delay}}


def under_way(state: StateDir, phase: RowPhase, tasks: int = 2, least: int = 3) -> Run:
    """The run, as soon as `tasks` tasks of `phase` are at work and have written so many rows."""
    wait_until(lambda: at_work(state, phase, tasks, least))
    return Run.open(state)


def lose(devcluster: Path, how: str, node: str) -> None:
    """A power cut (stop) or a network cut, which SLURM is told of instead of missing the node 20 seconds later."""
    subprocess.run(["bash", devcluster / "node.sh", how, node], check=True, capture_output=True)
    subprocess.run(
        ["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=not responding"], check=True
    )


def test_preempted_tasks_go_on_elsewhere_in_the_same_attempt(tmp_path: Path, launched: Launched) -> None:
    """Responses are preempted without warning, votes get SIGUSR2 first."""
    profile = variant(tmp_path / "profile.yaml", phases={"judge": {"partition": "gpu-grace"}})
    recipe = write_recipe(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    held = HeldBack(tmp_path, "iter_01-generate-a0", "iter_01-judge-a0")
    driver = launched("--recipe", recipe, "--state", state.root, "--profile", profile, **held.environment)
    told = set[int]()

    def all_told() -> bool:
        told.update(record.shard for record in records(run, Judge()) if record.outcome == "requeued")
        return told == {0, 1}

    for phase in (Generate(), Judge()):
        run = under_way(state, phase)
        struck = records(run, phase)
        preempt(record.node for record in struck)
        if phase.name == "judge":
            wait_until(all_told)
        wait_until(lambda run=run, phase=phase: all(record.requeues == 1 for record in records(run, phase)))
        subprocess.run(["scancel", "--name=urgent"], check=True)
    assert "items are missing" not in ended(driver)
    for phase in (Generate(), Judge()):
        assert len(AttemptDir(run, phase, 1).all()) == 1
        for record in records(run, phase):
            assert (record.outcome, record.requeues) == ("done", 1) and record.spent > 0
    assert_undisturbed(run, recipe, 1)


def test_the_rest_of_killed_and_cancelled_tasks_is_assigned_again(tmp_path: Path, launched: Launched) -> None:
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, engine=slowly(0.7), cluster={"tasks": 2})
    held = HeldBack(tmp_path, "iter_01-generate-a0", "iter_01-judge-a0")
    driver = launched(*asked, **held.environment)

    run = under_way(state, Generate())
    killed = records(run, Generate())[0]
    os.kill(killed.process.pid, signal.SIGKILL)
    held.let_go("iter_01-generate-a0")
    # Cancelled, a task goes on until SLURM kills it, three seconds later here; ten votes take it seven.
    run = under_way(state, Judge())
    cancelled = records(run, Judge())[1]
    subprocess.run(["scancel", str(cancelled.job)], check=True)
    held.let_go("iter_01-judge-a0")

    said = ended(driver)
    assert f"items are missing (failed on {killed.node}); assigning them again" in said
    assert f"items are missing (cancelled on {cancelled.node}); assigning them again" in said
    for phase in (Generate(), Judge()):
        first, second = AttemptDir(run, phase, 1).all()
        assert 0 < second.items <= first.items / 2
    assert not done_twice(run, 1), "what was in work was on no disk"
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)


def test_a_node_that_dies_and_never_comes_back_is_not_waited_for(
    tmp_path: Path, launched: Launched, devcluster: Path
) -> None:
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    driver = launched(*asked, **held.environment)
    run = under_way(state, Generate())
    before = records(run, Generate())
    dead = before[0].node
    lose(devcluster, "stop", str(dead))
    assert not any(record.alive for record in before if record.node == dead)
    held.let_go("iter_01-generate-a0")
    ended(driver)
    after = [record for record in records(run, Generate()) if record.outcome == "done"]
    assert after and all(record.node != dead for record in after)
    assert_undisturbed(run, recipe, 1)


def test_a_node_that_was_only_cut_off_stops_when_its_task_runs_elsewhere(
    tmp_path: Path, launched: Launched, devcluster: Path
) -> None:
    """Its processes know nothing of it and go on writing."""
    recipe = write_recipe(
        tmp_path, models=3, iterations=1, combats=14, engine=slowly(2.0), cluster={"tasks": 1}
    )
    state = StateDir(tmp_path / "state")
    arguments = ("--recipe", recipe, "--state", state.root)
    driver = launched(*arguments, "--profile", "devcluster")
    run = under_way(state, Generate(), tasks=1, least=2)
    [before] = records(run, Generate())
    lose(devcluster, "cut", str(before.node))
    assert before.alive
    wait_until(lambda: records(run, Generate())[0].requeues == 1)
    # Soon: long before the second start is through.
    wait_until(lambda: not before.alive)
    [after] = records(run, Generate())
    assert (after.outcome, after.node != before.node) == ("running", True)
    wait_until(lambda: records(run, Generate())[0].outcome == "done")
    driver.terminate()
    driver.wait()
    last = typed("launch", *arguments, "--set", "engine.scripted.delay=0")
    assert last.returncode == 0, last.stderr
    # What the first start did between the second one's first look and its own end; both rows are on disk, in files of their own.
    assert sum(done_twice(run, 1).values()) <= 5
    assert len(list(run.iteration(1).responses.glob("a0-00000*.jsonl"))) == 2
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)


def test_one_empty_answer_of_squeue_is_not_the_end_of_every_task(tmp_path: Path, launched: Launched) -> None:
    recipe = write_recipe(tmp_path, iterations=1, combats=6, cluster={"tasks": 2})
    state, blind, looks = StateDir(tmp_path / "state"), tmp_path / "blind", tmp_path / "looks"
    script = f'echo >>{looks}; rm {blind} 2>/dev/null && exit 0; exec $real "$@"'
    path = path_with(tmp_path / "bin", "squeue", script)
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    asked = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster")
    driver = launched(*asked, PATH=path, **held.environment)
    run = under_way(state, Generate())
    blind.touch()
    wait_until(lambda: not blind.exists())
    # Its tasks are not through before the driver has looked again.
    seen = looks.stat().st_size
    wait_until(lambda: looks.stat().st_size > seen)
    held.let_go("iter_01-generate-a0")
    ended(driver)
    assert all(len(AttemptDir(run, phase, 1).all()) == 1 for phase in PHASES)
    assert not done_twice(run, 1)


CHILDREN = """
import os, subprocess, sys
if "submitit.core._submit" in sys.orig_argv:
    from sparta.engines import scripted
    run = scripted.ScriptedEngine.run
    def with_a_child(engine, requests):
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        parent = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {stubborn!r}]); print(p.pid, flush=True); p.wait()"
        child = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
        grandchild = int(child.stdout.readline() or child.stdout.readline())
        from sparta.store.files import write_json
        from sparta.store.process import identify
        from pathlib import Path
        folder = Path(os.environ["CHILDREN"])
        for process in (child.pid, grandchild):
            write_json(folder / f"{os.environ.get('SLURM_RESTART_COUNT', '0')}-{process}.json", identify(process))
        yield from run(engine, requests)
    scripted.ScriptedEngine.run = with_a_child
"""
"""An engine with processes of its own, as vLLM has; the second ignores SIGTERM."""


def test_a_signalled_task_with_children_leaves_none_and_goes_on_at_its_first_missing_key(
    tmp_path: Path, launched: Launched
) -> None:
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    held.startup.write_text(held.startup.read_text() + CHILDREN)
    children = tmp_path / "children"
    children.mkdir()
    recipe, state, asked = scene(tmp_path, iterations=1, combats=6, cluster={"tasks": 1})
    driver = launched(*asked, CHILDREN=str(children), **held.environment)
    run = under_way(state, Generate(), tasks=1, least=2)
    [record] = records(run, Generate())
    first = [read_json(path, ProcessId) for path in children.glob("0-*.json")]
    assert len(first) == 2 and all(lives(process) for process in first)
    subprocess.run(["scancel", "--signal=USR2", str(record.job)], check=True)
    wait_until(lambda: records(run, Generate())[0].outcome == "requeued")
    wait_until(lambda: list(children.glob("1-*.json")))
    assert not any(lives(process) for process in first), "they are ended before the task begins again"
    assert "items are missing" not in ended(driver)
    [record] = records(run, Generate())
    assert (record.outcome, record.requeues) == ("done", 1)
    everyone = [read_json(path, ProcessId) for path in children.glob("*.json")]
    assert len(everyone) >= 6
    wait_until(lambda: not any(lives(process) for process in everyone))
    assert_undisturbed(run, recipe, 1)


def test_a_task_out_of_time_goes_on_in_the_same_attempt(tmp_path: Path, launched: Launched) -> None:
    """SLURM looks twice a minute whether the time for its signal has come: at its next look here."""
    profile = variant(tmp_path / "profile.yaml", signal_seconds=59, phases={"generate": {"time": 2}})
    recipe = write_recipe(tmp_path, iterations=1, combats=12, cluster={"tasks": 1})
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", recipe, "--state", state.root, "--profile", profile)
    held = HeldBack(tmp_path, "iter_01-generate-a0")
    driver = launched(*asked, **held.environment)
    run = under_way(state, Generate(), tasks=1, least=2)
    [record] = records(run, Generate())
    limit = ["scontrol", "update", f"JobId={record.job}"]
    subprocess.run([*limit, "TimeLimit=1"], check=True)
    wait_until(lambda: records(run, Generate())[0].outcome == "requeued")
    subprocess.run([*limit, "TimeLimit=2"], check=True)
    ended(driver)
    [record] = records(run, Generate())
    assert (record.outcome, record.requeues) == ("done", 1) and record.spent > 0
    assert len(AttemptDir(run, Generate(), 1).all()) == 1
    assert_undisturbed(run, recipe, 1)


def submission(run: Run, phase: RowPhase, number: int) -> str:
    """The sbatch script of an attempt at `phase`."""
    attempts = AttemptDir(run, phase, 1)
    jobs = jobs_of(attempts, number)
    assert jobs is not None
    scripts = [path.read_text() for path in attempts.logs.glob("*submission.sh")]
    [script] = [script for script in scripts if f"--job-name={jobs.names[0]}\n" in script]
    return script


def test_a_node_on_which_every_task_fails_is_left_out(tmp_path: Path, launched: Launched) -> None:
    """Tasks die there before they can say anything, and so fast that the node draws one after the other. Which node comes first is SLURM's choice."""
    profile = variant(
        tmp_path / "profile.yaml", at_once=2, setup=['[ "$SLURMD_NODENAME" != node1 ] || exit 3']
    )
    recipe = write_recipe(tmp_path, iterations=1, combats=6, cluster={"tasks": 4})
    state = StateDir(tmp_path / "state")
    said = ended(launched("--recipe", recipe, "--state", state.root, "--profile", profile))
    run = Run.open(state)
    tried = 0
    for phase in PHASES:
        assert {record.node for record in records(run, phase)} <= {"node2", "node3", "node4"}
        if len(AttemptDir(run, phase, 1).all()) == 2:
            tried += 1
            assert f"{phase.name} of iteration 1: " in said
            assert "#SBATCH --exclude" not in submission(run, phase, 0)
            assert "#SBATCH --exclude=node1\n" in submission(run, phase, 1)
    assert tried and said.count("items are missing (failed on node1); assigning them again") == tried
    assert not done_twice(run, 1)


def test_where_tasks_fail_on_every_node_the_run_stops_and_shows_the_log(
    tmp_path: Path, launched: Launched
) -> None:
    profile = variant(tmp_path / "profile.yaml", setup=["echo no such device", "exit 3"])
    recipe = write_recipe(tmp_path, iterations=1, cluster={"tasks": 2, "max_attempts": 2})
    state = StateDir(tmp_path / "state")
    driver = launched("--recipe", recipe, "--state", state.root, "--profile", profile)
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 1
    assert "generate of iteration 1: 24 of its items are missing after 2 attempts (failed on node" in err
    assert err.endswith("the last lines:\n  no such device\n") and "Traceback" not in err
    run = Run.open(state)
    assert len(AttemptDir(run, Generate(), 1).all()) == 2
    wait_until(lambda: gone(run))


def test_editing_the_checkout_changes_nothing_that_is_queued(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("jobs", "sparta", "slurm"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "*.whl"))
    recipe = write_recipe(tmp_path, iterations=1, combats=4, cluster={"tasks": 2, "at_once": 1})
    state = StateDir(tmp_path / "state")
    environment = {**quiet(), "PYTHONPATH": str(checkout)}
    arguments = ("--recipe", recipe, "--state", state.root, "--profile", "devcluster", "--detach")
    done = subprocess.run(
        [sys.executable, "jobs/launch.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=environment,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    (checkout / "sparta" / "__init__.py").write_text("raise SystemExit('edited')\n")
    run = Run.open(state)
    assert "PENDING" in queue(run)
    again = subprocess.run(
        [sys.executable, "-c", "import sparta"],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=environment,
        timeout=DEADLINE,
    )
    assert again.stderr == "edited\n", "what is queued inherited an environment that finds the edited code"
    wait_until(lambda: 1 in state.committed() or gone(run))
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)
    assert typed("launch", "--state", state.root).returncode == 0
