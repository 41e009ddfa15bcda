"""slurm/eval_all.sh, launch.sh and one_node.sh: drivers that are jobs, stopped and requeued, and their errors for wrong usage."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import (
    DEADLINE,
    Launched,
    advance,
    begin,
    command,
    manifests,
    rows_on_disk,
    sentence,
    typed,
    wait_until,
    write_recipe,
)
from support.slurm_runs import (
    PROFILE,
    SCRIPTS,
    Batch,
    assert_undisturbed,
    at_work,
    done_twice,
    ended,
    gone,
    responses,
    undisturbed,
)

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.detached import live_jobs
from sparta.evaluation.answer import Evaluate
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.store.driver_jobs import driver_jobs
from sparta.store.layout import StateDir
from sparta.store.lock import holder
from sparta.store.run import Run
from sparta.store.shards import LineCounter

SLOW = {"kind": "scripted", "scripted": {"delay": 0.1}}
"""Slow enough to be stopped in the middle."""
SLOWER = {"kind": "scripted", "scripted": {"delay": 0.5}}
"""Slow enough that one task is not through before another has started."""
FAST = ("--set", "engine.scripted.delay=0")


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of the embedded pool, finished and not scored."""
    state = tmp_path_factory.mktemp("toy") / "state"
    settings = ("combats=4", "cluster.tasks=4", "evaluation.validation=4", "evaluation.test=4")
    given = [part for setting in settings for part in ("--set", setting)]
    done = typed("launch", "--recipe", "toy", "--cluster", "inline", "--state", state, "--iters", 1, *given)
    assert done.returncode == 0, done.stderr
    return state


def scripted_run(folder: Path, iterations: int, **changes: object) -> Run:
    """A finished run of the scripted engine in folder/state."""
    run = begin(folder, iterations=iterations, **changes)
    for t in range(1, iterations + 1):
        advance(run, t)
    return run


def without_slurm(folder: Path) -> dict[str, str]:
    """An environment whose PATH has what scripts need and no sbatch."""
    (folder / "bin").mkdir()
    for program in ("bash", "dirname"):
        (folder / "bin" / program).symlink_to(shutil.which(program) or program)
    return {**os.environ, "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}"}


def by_hand(script: str, *arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = ["bash", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **options)  # type: ignore[call-overload]


def test_every_checkpoint_is_scored_in_an_array_as_it_is_without_slurm(
    toy_run: Path, tmp_path: Path, devcluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("slurm", "here"):
        shutil.copytree(toy_run, tmp_path / name)
    monkeypatch.setenv("PROFILE", str(PROFILE))
    batch = Batch("eval_all.sh", tmp_path / "slurm", log=tmp_path / "log")
    given = ["bash", SCRIPTS / "eval_all.sh", tmp_path / "here"]
    with (tmp_path / "here.log").open("w") as log:
        here = subprocess.Popen(given, stdout=log, stderr=log, env=without_slurm(tmp_path))
    assert batch.ends() == "COMPLETED", batch.text
    assert here.wait(timeout=DEADLINE) == 0, (tmp_path / "here.log").read_text()
    summaries = [tmp_path / name / "evals" / "summary.json" for name in ("slurm", "here")]
    assert summaries[0].read_bytes() == summaries[1].read_bytes()
    run = Run.open(StateDir(tmp_path / "slurm"))
    summary = json.loads(summaries[0].read_text())["tasks"]["toy"]
    assert set(summary["validation"]) == {f"iter_{t:02d}-{name}" for t in (0, 1) for name in run.models}
    [best] = [choice for choice in summary["choices"] if choice["what"] == "best of all checkpoints"]
    assert best["checkpoint"] in batch.text and best["checkpoint"] in (tmp_path / "here.log").read_text()
    [attempt] = AttemptDir(run, Evaluate("validation", {"toy": ("iter_00", "iter_01")}), 0).all()
    assert (attempt.cluster, attempt.shards) == ("slurm", 4)
    assert (tmp_path / "slurm" / "recipe.yaml").read_bytes() == (toy_run / "recipe.yaml").read_bytes()


def test_a_scoring_job_told_to_stop_goes_back_into_the_queue_and_finds_its_tasks_again(
    tmp_path: Path, devcluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"data": {"task": "toy", "size": 30}, "evaluation": {"validation": 20, "test": 4}}
    run = scripted_run(tmp_path, 1, **task, engine=SLOW, cluster={"profile": str(PROFILE)}, combats=2)
    monkeypatch.setenv("STATE", str(run.state.root))
    batch = Batch("eval_all.sh", log=tmp_path / "log")
    validation = Evaluate("validation", {"toy": ("iter_00", "iter_01")})
    [answers] = validation.parts
    batch.stopped_when(lambda: LineCounter(answers.folder(run)).fresh())
    assert batch.ends() == "COMPLETED", batch.text
    assert "best of all checkpoints" in batch.text
    assert len(AttemptDir(run, validation, 0).all()) == 1, "the tasks went on by themselves"
    keys = rows_on_disk(run, answers, 0)
    assert len(keys) == len(set(keys)) == 8 * 20


def test_a_driver_job_told_to_stop_goes_on_to_what_a_run_on_this_machine_commits(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, iterations=2, engine=SLOW)
    state = tmp_path / "slurm"
    batch = Batch(
        "launch.sh", "--recipe", recipe, "--state", state, "--profile", PROFILE, log=tmp_path / "log"
    )
    batch.stopped_when(lambda: LineCounter(state / "iter_01" / "votes").fresh())
    here = launched("--recipe", recipe, "--state", tmp_path / "here", *FAST)
    assert batch.ends() == "COMPLETED", batch.text
    ended(here)
    assert manifests(state) == manifests(tmp_path / "here") and len(manifests(state)) == 3
    run = Run.open(StateDir(state))
    assert [len(AttemptDir(run, phase, 1).all()) for phase in (Generate(), Judge())] == [1, 1]


def test_a_driver_job_that_went_back_does_not_go_back_again_when_it_is_restarted(
    tmp_path: Path, devcluster: Path
) -> None:
    run = scripted_run(tmp_path, 1, engine=SLOW, cluster={"profile": str(PROFILE)}, combats=4)
    before, state = manifests(run.state.root), run.state
    batch = Batch("launch.sh", "--iters", 2, "--resume", state.iteration(0).root, log=tmp_path / "log")
    aside = state.superseded.glob
    batch.stopped_when(lambda: [*aside("*/iter_01")] and LineCounter(state.iteration(1).responses).fresh())
    assert batch.ends() == "COMPLETED", batch.text
    assert len(list(aside("*"))) == 1
    after = manifests(state.root)
    assert len(after) == 3 and {name: after[name] for name in before} == before


def test_one_node_runs_its_tasks_inside_the_job_and_ends_them_when_told_to_stop(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, iterations=1, engine=SLOWER)
    state = tmp_path / "node"
    options = ("-p", "gpu", "--cpus-per-task=2", "--gpus-per-node=2")
    batch = Batch("one_node.sh", "--recipe", recipe, "--state", state, options=options, log=tmp_path / "log")
    batch.stopped_when(lambda: at_work(StateDir(state), Judge(), tasks=2))
    run = Run.open(StateDir(state))
    attempts = AttemptDir(run, Judge(), 1)
    records = attempts.records(attempts.all()[0])
    assert {record.gpus for record in records} == {"0", "1"}
    wait_until(lambda: not any(record.alive for record in attempts.records(attempts.all()[0])))
    here = launched("--recipe", recipe, "--state", tmp_path / "here", *FAST)
    assert batch.ends() == "COMPLETED", batch.text
    ended(here)
    assert manifests(state) == manifests(tmp_path / "here")
    keys = rows_on_disk(run, Judge(), 1)
    assert len(keys) == len(set(keys)), "work was done twice"


def test_cancelled_a_driver_job_ends_and_stays_ended(tmp_path: Path, devcluster: Path) -> None:
    recipe = write_recipe(tmp_path, iterations=1, engine=SLOW)
    state = tmp_path / "state"
    batch = Batch(
        "launch.sh", "--recipe", recipe, "--state", state, "--profile", PROFILE, log=tmp_path / "log"
    )
    batch.reaches(lambda: LineCounter(state / "iter_01" / "votes").fresh())
    subprocess.run(["scancel", batch.job], check=True, timeout=DEADLINE)
    assert batch.ends() == "CANCELLED", batch.text
    assert "interrupted: finished work is on disk" in batch.text and "into the queue" not in batch.text
    assert typed("launch", "--state", state).returncode == 0
    assert len(manifests(state)) == 2


def test_cancel_ends_a_driver_job_before_its_tasks_and_not_from_a_copy_of_the_state(
    tmp_path: Path, devcluster: Path
) -> None:
    recipe = write_recipe(tmp_path, combats=24, iterations=1, cluster={"tasks": 2})
    state, copy = StateDir(tmp_path / "state"), tmp_path / "copy"
    asked = ("--recipe", recipe, "--state", state.root, "--profile", PROFILE)
    batch = Batch("launch.sh", *asked, "--set", "engine.scripted.delay=2", log=tmp_path / "log")
    batch.reaches(lambda: responses(state) >= 1)
    run, now = Run.open(state), holder(state)
    assert now is not None and now.claim.driver_job == batch.job
    assert f"SLURM job {batch.job}" in sentence(typed("launch", *asked))
    subprocess.run(["cp", "-r", state.root, copy], check=True)
    said = sentence(typed("launch", "--state", copy, "--cancel"))
    assert f"{copy} is being driven by process {now.claim.pid} " in said
    assert batch.asked("%T") == "RUNNING" and len(live_jobs(run)) == 2

    ended = typed("launch", "--state", state.root, "--cancel")
    assert ended.returncode == 0, ended.stderr
    assert f"Ending the driver, process {now.claim.pid} " in ended.stdout
    assert f"SLURM job {batch.job}" in ended.stdout and "Ended 2 tasks" in ended.stdout
    assert batch.ends() == "CANCELLED"
    wait_until(lambda: gone(run))
    again = typed("launch", *asked)
    assert again.returncode == 0, again.stderr
    assert_undisturbed(run, recipe, 1)


def test_cancel_ends_a_driver_job_that_waits_in_the_queue_to_go_on(tmp_path: Path, devcluster: Path) -> None:
    recipe = write_recipe(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", recipe, "--state", state.root, "--profile", PROFILE)
    first = Batch("launch.sh", *asked, "--set", "engine.scripted.delay=2", log=tmp_path / "first.log")
    first.stopped_when(lambda: responses(state) >= 1)
    wait_until(lambda: first.asked("%T") == "PENDING")
    # SLURM would start it again in a few seconds.
    subprocess.run(["scontrol", "uhold", first.job], check=True, timeout=DEADLINE)
    run = Run.open(state)
    assert holder(state) is None and [note.job for note in driver_jobs(state)] == [first.job]
    ended = typed("launch", "--state", state.root, "--cancel")
    assert ended.returncode == 0, ended.stderr
    assert f"Ending job {first.job} (sparta-driver), which was queued to continue this run." in ended.stdout
    assert first.ends() == "CANCELLED"
    wait_until(lambda: gone(run))
    assert state.committed() == [0] and driver_jobs(state) == []

    second = Batch("launch.sh", *asked, "--set", "engine.scripted.delay=0", log=tmp_path / "second.log")
    assert second.ends() == "COMPLETED", second.text
    assert manifests(state.root) == undisturbed(tmp_path, recipe, 1)
    assert not done_twice(run, 1) and driver_jobs(state) == []


def test_cancel_leaves_an_allocation_alone_in_which_a_person_started_the_driver(
    tmp_path: Path, devcluster: Path
) -> None:
    recipe = write_recipe(tmp_path, combats=24, iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    slowly = ("--profile", PROFILE, "--set", "engine.scripted.delay=2")
    given = command("launch", "--recipe", recipe, "--state", state.root, *slowly)
    wrapped = [
        "sbatch",
        "--parsable",
        "-p",
        "cpu",
        f"--output={tmp_path / 'log'}",
        "--wrap",
        shlex.join(given),
    ]
    job = subprocess.run(wrapped, capture_output=True, text=True, check=True).stdout.strip()
    wait_until(lambda: responses(state) >= 1)
    now = holder(state)
    assert now is not None and (now.claim.slurm_job_id, now.claim.driver_job) == (job, None)
    said = sentence(typed("launch", "--state", state.root, "--cancel"))
    assert f"{state.root} is being driven by process {now.claim.pid} " in said and f"SLURM job {job}" in said
    asked = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == "RUNNING"
    assert len(live_jobs(Run.open(state))) == 2 and (there := holder(state)) is not None and there.alive


def test_mistakes_end_a_job_with_one_sentence(tmp_path: Path, devcluster: Path) -> None:
    nowhere = Batch("eval_all.sh", tmp_path / "nowhere", log=tmp_path / "nowhere.log")
    elsewhere = [
        Batch(script, cwd=tmp_path, log=tmp_path / f"{script}.log") for script in ("eval_all.sh", "launch.sh")
    ]
    short = Batch("launch.sh", options=("-p", "cpu", "--time=2:00"), log=tmp_path / "short.log")
    for batch, said in (
        (nowhere, f"error: {tmp_path / 'nowhere'} holds no run (no run.json)"),
        *((batch, f"error: {tmp_path} is not a checkout of this project") for batch in elsewhere),
        (short, "error: a time limit of 2:00 minutes leaves no time"),
    ):
        assert batch.ends() == "FAILED"
        assert batch.text.startswith(said) and batch.text.count("\n") == 1, batch.text


def test_a_profile_that_the_cluster_does_not_fit_is_refused_before_anything_is_submitted(
    tmp_path: Path, devcluster: Path
) -> None:
    run = scripted_run(tmp_path, 1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4})
    profile = tmp_path / "wrong.yaml"
    profile.write_text(PROFILE.read_text().replace("partition: gpu", "partition: gone"))
    refused = sentence(typed("evaluate", run.state.root, "--profile", profile))
    assert (
        "sends evaluate to partition gone" in refused
        and "partition gone, which this cluster does not have" in refused
    )
    assert not (run.state.jobs / "evals").exists() and not (run.state.jobs / "failure.json").exists()


def test_the_one_run_below_the_state_directory_is_taken_and_several_are_listed(tmp_path: Path) -> None:
    first = begin(tmp_path / "state" / "a")
    environment = {"env": without_slurm(tmp_path)}
    for given in ((tmp_path / "state" / "a",), ()):
        # A run without a task is found and cannot be scored.
        cwd = tmp_path / "state" if given else tmp_path / "state" / "a"
        done = by_hand("eval_all.sh", *given, cwd=cwd, **environment)
        assert f"{'state' if not given else first.state.root}/recipe.yaml names no task" in sentence(done)
    option = by_hand("eval_all.sh", "--state", first.state.root, cwd=tmp_path, **environment)
    assert f"{first.state.root}/recipe.yaml names no task" in sentence(option)
    both = by_hand(
        "eval_all.sh", first.state.root, "--state", tmp_path / "other", cwd=tmp_path, **environment
    )
    assert both.returncode == 2 and "two state directories are given" in both.stderr
    begin(tmp_path / "both" / "x")
    shutil.copytree(tmp_path / "both" / "x" / "state", tmp_path / "both" / "y")
    shutil.copytree(tmp_path / "both" / "x" / "state", tmp_path / "both" / "z")
    said = sentence(by_hand("eval_all.sh", tmp_path / "both", **environment))
    assert said == f"{tmp_path}/both holds 2 runs: name one of them, {tmp_path}/both/y {tmp_path}/both/z"


def test_tasks_and_split_may_be_said_by_variables_and_by_arguments(tmp_path: Path) -> None:
    run = scripted_run(tmp_path, 1, data={"task": "toy", "size": 30}, evaluation={"validation": 4, "test": 4})
    here = {**without_slurm(tmp_path), "STATE": str(run.state.root)}

    def scored(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return by_hand("eval_all.sh", *arguments, env={**here, **variables})

    assert (
        sentence(scored(SPLIT="nonsense")) == "SPLIT=nonsense is not a split: give validation, test or both"
    )
    assert "there is no task toyy; did you mean toy?" in sentence(scored(TASKS="toyy"))
    assert "there is no task toyy; did you mean toy?" in sentence(scored("--tasks", "toyy", TASKS="toy"))
    assert not run.state.evals.exists()
    done = scored(SPLIT="validation", TASKS="toy")
    assert done.returncode == 0, done.stderr
    assert "best of all checkpoints" in done.stdout and not (run.state.evals / "toy" / "test").exists()
    assert scored(SPLIT="test").returncode == 0 and (run.state.evals / "looks.jsonl").is_file()
