"""The section `container` of a profile: what it refuses, what a task sees, and the lines of a batch script; tests/slurm has it on a real SLURM."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.containers import PYXIS, stand_in
from support.scripted_run import begin, rehearsal

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.container import (
    REQUEUE_STATUS,
    REQUEUE_VARIABLE,
    Container,
    Mount,
    check_container,
    in_words,
    mount_of,
    mounts_of,
    requeue_lines,
)
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import Profile, load_profile
from sparta.cluster.slurm.submit import script
from sparta.cluster.slurm.worker import ShardJob, requeued_from_outside
from sparta.errors import SpartaError
from sparta.store.layout import StateDir
from sparta.store.run import Run

SIF = {"kind": "apptainer", "image": "/images/sparta.sif", "check": False}
SQSH = {"kind": "pyxis", "image": "/images/sparta.sqsh", "check": False}


def profile_with(folder: Path, container: object, **more: object) -> Profile:
    tree = {"name": "small", "nodes": 2, "gpus_per_node": 4, "container": container, **more}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_profile(path)


def script_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, container: object, state: str = "my state", **more: object
) -> str:
    """The script of a phase on GPUs (train) of a run in the folder `state`."""
    monkeypatch.setattr(cli, "installed", lambda: False)
    profile = profile_with(folder, container, **more)
    recipe = rehearsal(folder, cluster={"kind": "slurm", "profile": str(folder / "profile.yaml")})
    launcher = Slurm(Run(StateDir(folder / state), recipe, Run.describe(recipe)))
    [array] = launcher.arrays(ShardJob(folder / state, (Piece("train", 1, 0),)), 2)
    return script(array, profile)


def words_of(text: str) -> list[str]:
    """The words of the line that starts the task."""
    [line] = [line for line in text.splitlines() if line.startswith("srun ")]
    return shlex.split(line)


def test_apptainer_starts_python_with_the_state_and_what_the_recipe_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_of(script_of(tmp_path, monkeypatch, {**SIF, "mounts": ["/models:/models:ro"]}))
    inside = words[words.index("apptainer") :]
    state, code = tmp_path / "my state", inside[inside.index("/images/sparta.sif") - 1]
    assert inside[:4] == ["apptainer", "exec", "--nv", "--bind=/models:/models:ro"]
    assert f"--bind={state}:{state}:rw" in inside
    named = [tmp_path / "adapters" / "model0", tmp_path / "prompts.jsonl"]
    assert all(f"--bind={path}:{path}:ro" in inside for path in named)
    assert code.startswith(f"--pwd={state}/jobs/code/")
    command = inside[inside.index("env") :]
    assert command[:4] == ["env", "PYTHONNOUSERSITE=1", f"{REQUEUE_VARIABLE}=75", "PYTHONPATH=$PYTHONPATH"]
    assert command[4:8] == ["python3", "-u", "-m", "submitit.core._submit"]


def test_pyxis_gets_options_of_srun_and_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**SQSH, "python": "/opt/venv/bin/python", "options": ["--container-writable"]}
    text = script_of(tmp_path, monkeypatch, given, "state", srun=["--cpu-bind=none"])
    words, state = words_of(text), tmp_path / "state"
    assert not any("container" in line for line in text.splitlines() if line.startswith("#SBATCH"))
    assert "--container-image=/images/sparta.sqsh" in words and "--no-container-mount-home" in words
    assert "--container-writable" in words and "--cpu-bind=none" in words
    [mounts] = [word for word in words if word.startswith("--container-mounts=")]
    assert f"{state}:{state}:rw" in mounts.partition("=")[2].split(",")
    command = words[words.index("env") :]
    assert "apptainer" not in words and command[7] == "/opt/venv/bin/python"
    assert command[4] == "XDG_CACHE_HOME=${XDG_CACHE_HOME:-/tmp/sparta-cache}"
    before = text.partition("\nsrun ")[0]
    assert 'export NVIDIA_VISIBLE_DEVICES="${NVIDIA_VISIBLE_DEVICES:-all}"' in before


def test_pyxis_mounts_no_folder_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpartaError, match="my state cannot be mounted in a container: its name has a space"):
        script_of(tmp_path, monkeypatch, SQSH)


@pytest.mark.parametrize(("options", "gpus", "nv"), [([], 1, True), ([], 0, False), (["--rocm"], 1, False)])
def test_apptainer_shows_nvidias_cards_to_tasks_that_have_them(
    options: list[str], gpus: int, nv: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = script_of(tmp_path, monkeypatch, {**SIF, "options": options}, gpu={"gpus": gpus})
    assert ("--nv" in words_of(text)) == nv


def test_without_a_container_nothing_of_it_is_in_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = script_of(tmp_path, monkeypatch, None)
    assert (
        REQUEUE_VARIABLE not in text
        and "teardown" not in text
        and "requeue\n" not in text.partition("# setup")[2]
    )


@pytest.mark.parametrize(
    ("status", "task", "said"),
    [
        (REQUEUE_STATUS, {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "requeue 7_3 none"),
        (REQUEUE_STATUS, {}, "requeue 9 none"),
        (1, {}, ""),
        (0, {}, ""),
    ],
)
@pytest.mark.parametrize("setup", ["", "set -euo pipefail"])
def test_the_end_of_a_script_requeues_the_task_that_asks_for_it_and_no_other(
    status: int, task: dict[str, str], said: str, setup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = script_of(tmp_path, monkeypatch, SIF, setup=[setup] if setup else [])
    fakes = {"srun": f"exit {status}", "scontrol": 'echo "$@" "${SLURM_CLUSTERS:-none}"'}
    (tmp_path / "bin").mkdir()
    for name, body in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.defpath}",
        "SLURM_JOB_ID": "9",
        "SLURM_CLUSTERS": "beta",
        **task,
    }
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (status, said), done.stderr
    assert requeue_lines()[-1] == 'exit "$status"'


def test_a_path_that_would_be_read_as_options_of_a_mount_is_refused(tmp_path: Path) -> None:
    run = begin(tmp_path / "a,b")
    with pytest.raises(SpartaError, match="a,b.* cannot be mounted in a container"):
        mounts_of(run, Container.model_validate(SIF))


def test_mounts_of_the_profile_replace_those_of_the_suite_where_they_have_the_same_name(
    tmp_path: Path,
) -> None:
    run = begin(tmp_path)
    container = Container.model_validate({**SIF, "mounts": [str(tmp_path)]})
    assert mounts_of(run, container) == [Mount(str(tmp_path), str(tmp_path), True)]
    container = Container.model_validate({**SIF, "mounts": [f"{tmp_path}/state/../:{tmp_path}/"]})
    assert mounts_of(run, container) == [Mount(str(tmp_path), str(tmp_path), True)]
    # A task must be able to write its rows, under the path that it was given.
    state = str(run.state.root.resolve())
    for useless in (f"{tmp_path}:{tmp_path}:ro", f"{tmp_path}:/elsewhere"):
        container = Container.model_validate({**SIF, "mounts": [useless]})
        assert Mount(state, state, True) in mounts_of(run, container)


def test_a_folder_is_mounted_before_those_in_it(tmp_path: Path) -> None:
    """A recipe may name a folder, read-only, that the state lies in."""
    recipe = rehearsal(tmp_path, data={"train": str(tmp_path / "prompts.jsonl"), "folder": str(tmp_path)})
    run = Run(StateDir(tmp_path / "state"), recipe, Run.describe(recipe))
    container = Container.model_validate({**SIF, "mounts": [str(tmp_path / "state" / "deep")]})
    places = [(mount.inside, mount.writable) for mount in mounts_of(run, container)]
    folders = [
        (str(tmp_path), False),
        (str(tmp_path / "state"), True),
        (str(tmp_path / "state" / "deep"), True),
    ]
    assert [place for place in places if place in folders] == folders


def test_links_of_a_model_that_lead_out_of_its_folder_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "abc"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / "123").touch()
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (snapshot / "dangling").symlink_to("../../blobs/456")
    # A file that people put together of such, and one whose path leads through a linked folder.
    mine, scratch = tmp_path / "mine" / "deep", tmp_path / "scratch"
    mine.mkdir(parents=True)
    scratch.mkdir()
    (mine / "config.json").symlink_to(snapshot / "config.json")
    (scratch / "weights").touch()
    (tmp_path / "home").symlink_to(scratch)
    (mine / "weights").symlink_to(tmp_path / "home" / "weights")
    recipe = rehearsal(tmp_path, pool={"base": str(snapshot), "models": [{"name": "a"}, {"name": "b"}]})
    run = Run(StateDir(tmp_path / "state"), recipe, Run.describe(recipe))
    seen = {mount.host for mount in mounts_of(run, Container.model_validate(SIF))}
    assert {str(blobs), str(snapshot), str(tmp_path / "state")} <= seen
    recipe = rehearsal(tmp_path, pool={"base": str(mine.parent), "models": [{"name": "a"}, {"name": "b"}]})
    run = Run(StateDir(tmp_path / "state"), recipe, Run.describe(recipe))
    seen = {mount.host for mount in mounts_of(run, Container.model_validate(SIF))}
    assert {str(mine.parent), str(snapshot), str(blobs), str(tmp_path / "home"), str(scratch)} <= seen


def test_the_plan_names_folders_of_the_setup_that_tasks_do_not_see(tmp_path: Path) -> None:
    container = Container.model_validate({**SIF, "mounts": ["/shared"]})
    setup = [
        "module load gcc; export VLLM_CACHE_ROOT='/scratch/vllm'",
        "export HF_HOME=/shared/hub",
        "export A=b PATH=/opt/bin:$PATH LD_LIBRARY_PATH=/opt/lib TMPDIR=$SCRATCH/tmp",
    ]
    lines = in_words(container, container.own_mounts, setup)
    assert lines[-2] == "does not see VLLM_CACHE_ROOT=/scratch/vllm, which the profile's setup names"
    assert lines[-1].startswith("may not see TMPDIR=$SCRATCH/tmp, which the profile's setup names")
    assert "sees /shared" in lines
    assert mount_of("/a:/b:ro").in_words == "/a as /b, read-only"


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"kind": "docker", "image": "/x"}, "container.kind: input should be 'pyxis' or 'apptainer'"),
        ({"kind": "apptainer"}, "container.image is missing"),
        ({**SIF, "imagee": "/x"}, "unknown key container.imagee; did you mean image?"),
        ({**SIF, "image": "$(id)"}, "container.image: '$(id)' is not an image"),
        ({**SIF, "image": "-x"}, "container.image: '-x' is not an image"),
        ({**SIF, "image": "/a b.sif"}, "container.image: '/a b.sif' is not an image"),
        ({**SIF, "image": "sparta.sif"}, "container.image: sparta.sif is not found from the folder of a job"),
        ({**SQSH, "image": "./sparta.sqsh"}, "container.image: ./sparta.sqsh is not found from the folder"),
        ({**SIF, "mounts": ["data"]}, "container.mounts: 'data' is not a mount: write /path, "),
        ({**SIF, "mounts": ["/a,/b"]}, "container.mounts: '/a,/b' is not a mount"),
        ({**SIF, "mounts": ["/a:/b:rx"]}, "container.mounts: '/a:/b:rx' is not a mount"),
        ({**SIF, "mounts": ["/a\n"]}, "container.mounts: '/a\\n' is not a mount"),
        ({**SIF, "mounts": ["/`id`"]}, "container.mounts: '/`id`' is not a mount"),
        ({**SIF, "mounts": ["/a:/"]}, "container.mounts: '/a:/' would hide the whole image"),
        ({**SIF, "mounts": "/a"}, "container.mounts: input should be a valid tuple"),
        ({**SIF, "options": ["nv"]}, "container.options.0: 'nv' is not one option"),
        ({**SIF, "options": ["--env A=B"]}, "container.options.0: '--env A=B' is not one option"),
        ({**SIF, "options": ["--bind=/a"]}, "container.options: --bind=/a cannot be given here"),
        ({**SIF, "options": ["--compat"]}, "container.options: --compat cannot be given here"),
        ({**SQSH, "options": ["--export=NONE"]}, "container.options: --export=NONE is no option of pyxis"),
        ({**SQSH, "mounts": ["/my data"]}, "container.mounts: '/my data' has a space"),
        ({**SIF, "options": ["--cleanenv"]}, "container.options: --cleanenv cannot be given here"),
        ({**SQSH, "options": ["--container-mounts=/a:/a"]}, "container.options: --container-mounts=/a:/a cannot"),
        ({**SIF, "python": "python3; id"}, "container.python: 'python3; id' is not the path or name of a program"),
        ({**SIF, "check": "maybe"}, "container.check: input should be a valid boolean"),
        ("apptainer", "container: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named_with_its_place(
    container: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpartaError) as error:
        profile_with(tmp_path, container)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_would_start_the_task_in_another_way_is_refused_beside_a_container(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match=r"set container\.python, and leave python out"):
        profile_with(tmp_path, SIF, python="python3.11")
    with pytest.raises(SpartaError, match="srun has --container-image=x besides the section container"):
        profile_with(tmp_path, SQSH, srun=["--container-image=x"])


def test_an_image_or_a_mount_that_is_not_here_is_refused_unless_only_compute_nodes_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, path = stand_in(tmp_path / "container", "apptainer")
    given = {"kind": "apptainer", "image": str(image), "mounts": [str(tmp_path)]}
    with pytest.raises(SpartaError, match="of apptainer, which is not on PATH here: .* set container.check"):
        check_container(Container.model_validate(given), "mine")
    monkeypatch.setenv("PATH", path)
    check_container(Container.model_validate(given), "mine")
    for change in ({"image": "/nowhere/x.sif"}, {"mounts": ["/nowhere:/data"]}):
        with pytest.raises(SpartaError, match="profile mine names /nowhere.* does not exist here"):
            check_container(Container.model_validate({**given, **change}), "mine")
        check_container(Container.model_validate({**given, **change, "check": False}), "mine")


@pytest.mark.parametrize("known", [True, False])
def test_pyxis_is_there_where_srun_knows_its_options(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PYXIS.replace("REAL", "echo").replace("ENTER", "") if known else "#!/bin/sh\necho Usage: srun\n"
    (tmp_path / "srun").write_text(text)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    container = Container.model_validate({"kind": "pyxis", "image": "nvcr.io#nvidia/pytorch:24.05-py3"})
    if known:
        check_container(container, "mine")
    else:
        with pytest.raises(SpartaError, match="srun knows no --container-image here: ask the cluster's"):
            check_container(container, "mine")


TASK = """
import os, sys
from sparta.cluster.slurm.worker import requeued_from_outside
from submitit.slurm.slurm import SlurmJobEnvironment
with requeued_from_outside():
    if sys.argv[1] != "works":
        SlurmJobEnvironment()._requeue(3)
    if sys.argv[1] == "asks":
        sys.exit(-1)
    if sys.argv[1] == "fails":
        raise OSError("a library, interrupted")
    print("done")
"""


@pytest.mark.parametrize(
    ("how", "status"), [("works", 0), ("asks", REQUEUE_STATUS), ("fails", REQUEUE_STATUS)]
)
def test_a_task_in_a_container_asks_for_its_requeue_by_its_exit_status(how: str, status: int) -> None:
    environment = {**os.environ, REQUEUE_VARIABLE: str(REQUEUE_STATUS), "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", TASK, how], capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stderr
    assert ("the batch script requeues this task (3 remaining timeouts)" in done.stdout) == (how != "works")


def test_without_a_container_submitit_requeues() -> None:
    from submitit.slurm.slurm import SlurmJobEnvironment

    before = SlurmJobEnvironment._requeue
    with requeued_from_outside():
        assert SlurmJobEnvironment._requeue is before
