"""Mistakes of a person, an administrator or a cluster: a clear error, nothing lost, and the same command continues afterwards."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.scripted_run import (
    DEADLINE,
    Launched,
    advance,
    begin,
    manifests,
    sentence,
    typed,
    wait_until,
    write_recipe,
)
from support.slurm_runs import (
    NOTED,
    Listener,
    assert_undisturbed,
    done_twice,
    gone,
    path_with,
    queue,
    responses,
    scene,
    undisturbed,
    variant,
)

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.code_snapshot import snapshot
from sparta.cluster.slurm.launcher import Slurm
from sparta.errors import SpartaError
from sparta.methods.registry import phases_of
from sparta.phases.generate import Generate
from sparta.recipes.load import adjust
from sparta.store.layout import StateDir
from sparta.store.run import Run

pytestmark = pytest.mark.usefixtures("devcluster")


def failing(launched: Launched, *arguments: object, **environment: str) -> str:
    """The sentence with which a launch ends in this environment."""
    process = launched(*arguments, **environment)
    out, err = process.communicate(timeout=DEADLINE)
    return sentence(subprocess.CompletedProcess([], process.returncode, out, err))


def test_a_cluster_that_refuses_jobs_is_quoted(tmp_path: Path, launched: Launched) -> None:
    """One after the other on one state, which the last command completes."""
    recipe = write_recipe(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    state = tmp_path / "state"
    asked = ("--recipe", recipe, "--state", state)
    usual = (*asked, "--profile", "devcluster")

    # Said before anything is begun.
    assert "there is no profile devclutser" in (
        said := sentence(typed("launch", *asked, "--profile", "devclutser"))
    )
    assert "did you mean devcluster?" in said
    short = variant(tmp_path / "short.yaml", gpu={"partition": "gpu", "time": 1})
    assert "a time limit of 1 min does not leave signal_seconds (30 s) and a minute more" in sentence(
        typed("launch", *asked, "--profile", short)
    )

    bare = tmp_path / "bare"
    bare.mkdir()
    said = failing(launched, *asked, "--cluster", "slurm", PATH=str(bare))
    assert "is not on PATH: log in where SLURM's commands are" in said and "--cluster local" in said
    for name in ("sinfo", "squeue", "scontrol", "scancel"):
        (bare / name).symlink_to(shutil.which(name) or "")
    assert "sbatch is not on PATH" in failing(launched, *usual, PATH=str(bare))
    (bare / "sbatch").symlink_to(shutil.which("sbatch") or "")
    assert "srun is not on PATH: log in where" in failing(launched, *usual, PATH=str(bare))
    assert not state.exists()

    refusal = "Batch job submission failed: Invalid account or account/partition combination specified"
    said = failing(
        launched,
        *usual,
        PATH=path_with(tmp_path / "bin", "sbatch", f'echo "sbatch: error: {refusal}" >&2; exit 1'),
    )
    assert f"sbatch refused a job of profile devcluster: {refusal}; correct the profile" in said
    refusal = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
    said = failing(
        launched,
        *usual,
        PATH=path_with(tmp_path / "bin", "sbatch", f'echo "sbatch: error: {refusal}" >&2; exit 1'),
    )
    assert f"{refusal}; a limit of the cluster is reached: wait until other jobs have ended" in said

    nowhere = variant(tmp_path / "nowhere.yaml", gpu={"partition": "gpus", "time": 10})
    said = sentence(typed("launch", *asked, "--profile", nowhere))
    assert "sends generate to partition gpus, which this cluster does not have (it has cpu, gpu, " in said
    particular = variant(tmp_path / "particular.yaml", constraint="h100")
    said = sentence(typed("launch", *asked, "--profile", particular))
    assert "sbatch refused a job of profile devcluster: " in said and "feature" in said
    subprocess.run(["scontrol", "update", "PartitionName=gpu", "MaxTime=5"], check=True)
    try:
        said = sentence(typed("launch", *usual))
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=gpu", "MaxTime=UNLIMITED"], check=True)
    assert "asks for 10 min for generate, and partition gpu allows 5: lower the time in the profile" in said

    run = Run.open(StateDir(state))
    wait_until(lambda: gone(run))
    done = typed("launch", *usual)
    assert done.returncode == 0, done.stderr
    assert manifests(state) == undisturbed(tmp_path, recipe, 1)
    assert not done_twice(run, 1)


def test_a_dry_run_shows_what_would_be_submitted_and_writes_nothing(
    tmp_path: Path, launched: Launched
) -> None:
    _, state, asked = scene(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    dry = typed("launch", *asked, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not state.root.exists()
    assert re.search(r"^GPU-hours +about ", dry.stdout, re.MULTILINE)
    scripts = scripts_in(dry.stdout)
    assert [(name, count) for name, count, _ in scripts] == [
        ("generate", 2),
        ("judge", 2),
        ("merge", 1),
        ("train", 2),
    ]
    # What sbatch itself says to each.
    assert len(re.findall(r"^# .*Job \d+ to start at ", dry.stdout, re.MULTILINE)) == 4

    bare = tmp_path / "bare"
    bare.mkdir()
    elsewhere = launched(*asked, "--dry-run", PATH=str(bare))
    out, err = elsewhere.communicate(timeout=DEADLINE)
    assert elsewhere.returncode == 0, err
    assert "There is no sbatch here, so these scripts were not checked" in " ".join(out.split())
    assert scripts_in(out) == scripts
    particular = variant(tmp_path / "particular.yaml", constraint="h100")
    said = sentence(typed("launch", *asked[:-1], particular, "--dry-run"))
    assert "sbatch would refuse sparta-" in said and "Invalid feature specification" in said
    assert not state.root.exists()

    done = typed("launch", *asked)
    assert done.returncode == 0, done.stderr
    for name, _, text in scripts:
        [submitted] = (state.jobs / "iter_01" / name / "logs").glob("*_submission.sh")
        assert neutral(submitted.read_text()) == text, name

    # submitit has a last word after its task's.
    wait_until(lambda: gone(Run.open(state)))
    before = {path: path.stat().st_mtime_ns for path in state.root.rglob("*")}
    more = typed("launch", *asked, "--iters", 3, "--dry-run")
    assert more.returncode == 0 and len(scripts_in(more.stdout)) == 4, more.stderr
    assert {path: path.stat().st_mtime_ns for path in state.root.rglob("*")} == before


def test_a_profile_without_gpus_is_for_engines_that_need_none_or_are_elsewhere(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    bare = variant(tmp_path / "bare.yaml", gpu={"partition": "cpu", "cpus": 1, "time": 10, "gpus": 0})
    done = typed("launch", "--recipe", recipe, "--state", state.root, "--profile", bare)
    assert done.returncode == 0, done.stderr
    run = Run.open(state)
    attempts = AttemptDir(run, Generate(), 1)
    assert [record.gpus for record in attempts.records(attempts.all()[0])] == [None, None]

    phases = phases_of(run.recipe, 1)
    on_two = ["engine.kind=vllm", "engine.vllm.tensor_parallel=2"]
    gpus = {"partition": "gpu", "cpus": 1, "time": 10, "gpus": 2}
    some = variant(tmp_path / "some.yaml", gpu=gpus, phases={"judge": {"gpus": 1}, "train": {"gpus": 1}})
    enough = variant(tmp_path / "enough.yaml", gpu=gpus, phases={"train": {"gpus": 1}})
    api = ["engine.kind=api", "engine.api.url=http://127.0.0.1:9", "engine.vllm.tensor_parallel=2"]
    for profile, settings, said in (
        (bare, on_two, "profile devcluster gives a task of generate 0 GPUs: set phases.generate.gpus there"),
        (some, on_two, "gives a task of judge 1 GPU: set phases.judge.gpus there, or lower it"),
        (enough, on_two, ""),
        (bare, api, ""),
    ):
        run.recipe = adjust(run.recipe, [*settings, f"cluster.profile={profile}"])
        if said:
            with pytest.raises(SpartaError, match=re.escape(said)):
                Slurm(run).check(phases)
        else:
            Slurm(run).check(phases)


def scripts_in(shown: str) -> list[tuple[str, int, str]]:
    """Phase, number of tasks and script of every array that a dry run shows."""
    found = re.findall(
        r"^sparta-\w+-iter_\d\d-(\w+)-a0: (\d+) tasks? .*\n(#!/bin/bash\n(?:.*\n)*?)(?=# .* to start at |sparta-|─)",
        shown,
        re.MULTILINE,
    )
    return [(name, int(count), neutral(text)) for name, count, text in found]


def neutral(script: str) -> str:
    """A script without the name of the run, which a dry run invents, and without white space at the ends of lines."""
    lines = re.sub(r"sparta-[0-9a-f]{12}-", "sparta-RUN-", script).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def test_a_job_that_an_administrator_holds_stops_the_run_and_one_that_its_owner_holds_waits(
    tmp_path: Path, launched: Launched
) -> None:
    recipe, state, asked = scene(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})

    def pending() -> list[str]:
        jobs = queue(Run.open(state), "%F") if state.run_json.is_file() else []
        return jobs if len(jobs) == 2 else []

    try:
        subprocess.run(["scontrol", "update", "PartitionName=gpu", "State=DOWN"], check=True)
        driver = launched(*asked)
        wait_until(pending)
        subprocess.run(["scontrol", "hold", pending()[0]], check=True)
        out, err = driver.communicate(timeout=DEADLINE)
        said = sentence(subprocess.CompletedProcess([], driver.returncode, out, err))
        assert "SLURM will not start job " in said and "an administrator holds it" in said
        assert "JobHeldAdmin); it was cancelled" in said
        run = Run.open(state)
        wait_until(lambda: gone(run))

        driver = launched(*asked)
        heard = Listener(driver)
        wait_until(pending)
        subprocess.run(["scontrol", "uhold", pending()[0]], check=True)
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=gpu", "State=UP"], check=True)
    # Its owner may have reasons; what it waits for is told, after a while.
    heard.hears("generate: 2 tasks wait (JobHeldUser)")
    assert driver.poll() is None
    subprocess.run(["scontrol", "release", pending()[0]], check=True)
    _, err = heard.end()
    assert driver.returncode == 0, err
    assert_undisturbed(run, recipe, 1)


def test_a_controller_that_is_silent_is_asked_again_and_jobs_go_on_without_it(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", recipe, "--state", state.root)
    mute, calls = tmp_path / "mute", tmp_path / "calls"
    says = "Unable to contact slurm controller (connect failure)"
    path = path_with(
        tmp_path / "bin",
        "squeue",
        f'[ -e {mute} ] && {{ echo >> {calls}; echo "slurm_load_jobs error: {says}" >&2; exit 1; }}; exec "$real" "$@"',
    )
    hasty = variant(tmp_path / "hasty.yaml", patience_minutes=0.02)
    driver = launched(*asked, "--profile", hasty, "--set", "engine.scripted.delay=1", PATH=path)
    wait_until(lambda: responses(state) >= 1)
    mute.touch()
    out, err = driver.communicate(timeout=DEADLINE)
    said = sentence(subprocess.CompletedProcess([], driver.returncode, out, err))
    assert "SLURM has not answered for" in said and says in said
    assert "running jobs continue without the driver; run the same command again when SLURM answers" in said

    # Still silent when the next driver begins, which is more patient.
    calls.unlink()
    driver = launched(*asked, "--profile", "devcluster", PATH=path)
    wait_until(lambda: calls.exists() and len(calls.read_text()) >= 2)
    mute.unlink()
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err
    run = Run.open(state)
    assert len(AttemptDir(run, Generate(), 1).all()) == 1
    assert_undisturbed(run, recipe, 1)


HICCUP = """
echo "$name" >>CALLS
if [ $(wc -l <CALLS) -le 2 -o -e MUTE ]; then
    "$real" "$@" >/dev/null
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
    exit 1
fi
echo "Checking job 12 hours ahead of you"
exec "$real" "$@"
"""
"""An sbatch that queues the job and does not come to saying so, twice or while MUTE is there; then one that talks too much."""


def test_an_sbatch_that_loses_its_answer_is_asked_again_and_nothing_is_done_twice(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, combats=6, iterations=1, cluster={"tasks": 2})
    state = StateDir(tmp_path / "state")
    asked = ("--recipe", recipe, "--state", state.root)
    calls, mute = tmp_path / "calls", tmp_path / "mute"
    script = NOTED + HICCUP.replace("CALLS", str(calls)).replace("MUTE", str(mute))
    path = path_with(tmp_path / "bin", "sbatch", script)
    mute.touch()
    hasty = variant(tmp_path / "hasty.yaml", patience_minutes=0.02)
    said = failing(launched, *asked, "--profile", hasty, PATH=path)
    assert "SLURM has not answered for" in said and "Socket timed out on send/recv operation" in said
    assert "run the same command again when it does, nothing is lost" in said
    run = Run.open(state)
    # What sbatch queued the last time, before it was given up on; what it queued before has been withdrawn.
    assert len([state for state in queue(run) if state != "COMPLETING"]) == 2

    mute.unlink()
    calls.unlink()
    driver = launched(*asked, "--profile", "devcluster", PATH=path)
    _, err = driver.communicate(timeout=DEADLINE)
    assert driver.returncode == 0, err
    names = [name.partition("iter_01-")[2] for name in calls.read_text().split()]
    assert names == [*["generate-a1"] * 3, "judge-a0", "merge-a0", "train-a0"]
    attempts = AttemptDir(run, Generate(), 1)
    assert [len(attempts.records(attempt)) for attempt in attempts.all()] == [0, 2]
    wait_until(lambda: gone(run))
    assert_undisturbed(run, recipe, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk with room for so many KiB more than it holds, or makes it that large; skips where this user may not mount."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def room(kib: int) -> Path:
        mounted = os.path.ismount(disk)
        held = shutil.disk_usage(disk).used // 1024 if mounted else 0
        options = f"{'remount,' * mounted}size={held + kib}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
        return disk

    try:
        yield room
    finally:
        if os.path.ismount(disk):
            subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_full_when_jobs_are_submitted_loses_nothing(
    small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    disk = small_disk(100_000)
    run = begin(disk, combats=6, iterations=1, cluster={"tasks": 2})
    advance(run, 1, upto="plan")
    snapshot(run.state)
    asked = ("--state", run.state.root, "--profile", "devcluster")
    # Room for some of the files of an attempt, and fewer of those that submitit puts beside them.
    for kib in (12, 20, 28):
        small_disk(kib)
        said = sentence(typed("launch", *asked))
        assert f"The disk or quota that holds {run.state.root}" in said and "is full" in said
    small_disk(50_000)
    done = typed("launch", *asked)
    assert done.returncode == 0, done.stderr
    assert manifests(run.state.root) == undisturbed(tmp_path, disk / "recipe.yaml", 1)
    assert not done_twice(run, 1)
