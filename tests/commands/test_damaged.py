"""Damaged files in a state: measurements never stop a run, and everything else is an error that names the file."""

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, advance, begin, manifests, sentence, typed

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.driver import last_lines
from sparta.commands.launch import launch
from sparta.commands.launch_request import LaunchRequest
from sparta.engines.weight_files import read_object
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.phases.base import Phase
from sparta.phases.judge import Judge
from sparta.phases.train import Train
from sparta.recipes.load import load
from sparta.screen import Screen
from sparta.status.collect import status_of
from sparta.store import files
from sparta.store.disk import os_errors_in_words
from sparta.store.failure import note_failure
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.process import identify, lives
from sparta.store.run import Run
from sparta.tasks.user_data.items import UserItems
from sparta.tasks.user_data.sources import UserSource


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with iteration 1 committed and the second one played, counted and not yet trained on."""
    run = begin(tmp_path_factory.mktemp("original"), models=3, combats=4)
    advance(run, 1)
    advance(run, 2, upto="merge")
    note_failure(run.state, "the last launch failed")
    return run.state.root


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "state"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def of_another_kind(path: Path) -> None:
    path.write_text('{"unheard": "of"}\n')


def link(path: Path) -> None:
    """To the very file that was there."""
    elsewhere = Path(os.environ["ELSEWHERE"]) / path.name
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


MEASURED = (
    "iter_01/stats.json",
    "iter_02/stats.json",
    "jobs/failure.json",
    "jobs/iter_01/generate/a0.json",
    "jobs/iter_02/judge/a0.json",
    "jobs/iter_02/judge/a0-00000.json",
)
STRANGE: tuple[Callable[[Path], None], ...] = (link, dangling, pipe, folder)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))


@pytest.fixture(scope="module")
def undisturbed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    state = Path(shutil.copytree(original, tmp_path_factory.mktemp("undisturbed") / "state"))
    launch(LaunchRequest(state=state, iterations=3), Screen())
    return manifests(state)


@pytest.mark.parametrize("damage", [cut, zeros, of_another_kind, link, dangling, pipe])
@pytest.mark.parametrize("name", MEASURED)
def test_a_damaged_measurement_counts_as_missing_and_is_noted(
    name: str,
    damage: Callable[[Path], None],
    state: Path,
    undisturbed: dict[str, bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(state / name)
    status_of(Run.open(StateDir(state)))
    launch(LaunchRequest(state=state, iterations=3), Screen())
    assert manifests(state) == undisturbed
    noted = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert any(f"{state / name} is damaged and counts as missing" in line for line in noted), noted


@pytest.mark.parametrize("damage", [cut, zeros, of_another_kind, dangling, pipe])
@pytest.mark.parametrize("phase", [Train(), Evaluate("test", {"own": ("iter_01",)})])
def test_tasks_of_an_attempt_whose_file_is_damaged_are_cancelled(
    phase: Phase, damage: Callable[[Path], None], state: Path
) -> None:
    attempts = AttemptDir(Run.open(StateDir(state)), phase, 2)
    attempts.assign([[]], "local")
    damage(attempts.folder / "a0.json")
    with subprocess.Popen(["sleep", "600"]) as task:
        try:
            process = identify(task.pid)
            files.write_json(attempts.folder / "a0-00000.process", process)
            launch(LaunchRequest(state=state, cancel=True), Screen())
            task.wait(DEADLINE)
        finally:
            task.kill()
    assert not lives(process)


def test_a_cancelled_run_is_left_without_what_killed_writers_had_begun(state: Path) -> None:
    left = state / "jobs" / f".failure.json.{'0' * 16}.tmp"
    left.touch()
    launch(LaunchRequest(state=state, cancel=True), Screen())
    assert not left.exists()


@pytest.mark.parametrize("damage", [zeros, of_another_kind])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "iter_02/judge/a0-jobs.json",
            "end the jobs of this attempt if SLURM still has any .*, remove the file",
        ),
        ("chain.json", "end what is left of the detached launch with .* --cancel and launch again"),
    ],
)
def test_a_damaged_note_of_jobs_is_named_with_what_to_do(
    name: str, remedy: str, damage: Callable[[Path], None], state: Path
) -> None:
    """Jobs that nobody knows of would do their work a second time."""
    path = state / "jobs" / name
    path.write_text("{}")
    damage(path)
    with pytest.raises(SpartaError, match=f"{path} is not a valid .*: {remedy}"):
        launch(LaunchRequest(state=state, iterations=3), Screen())
    with pytest.raises(SpartaError, match=f"{path} is not a valid .*: {remedy}"):
        status_of(Run.open(StateDir(state)))


@pytest.mark.parametrize("damage", [zeros, of_another_kind])
def test_a_lock_whose_holder_cannot_be_read_is_named_with_what_to_do(
    damage: Callable[[Path], None], state: Path
) -> None:
    with RunLock(StateDir(state), print):
        pass
    lock, path = state / "jobs" / "lock", state / "jobs" / "lock" / "0123.json"
    (lock / "free").rename(lock / "held-0123")
    path.write_text("{}")
    damage(path)
    with pytest.raises(
        SpartaError,
        match=f"{path} is not a valid Claim .*: make sure that no other driver runs on {state}, delete {lock}",
    ):
        launch(LaunchRequest(state=state, iterations=3), Screen())
    shutil.rmtree(lock)
    launch(LaunchRequest(state=state, iterations=3), Screen())


STATE_FILES = (
    "run.json",
    "recipe.yaml",
    "data/train.jsonl",
    "iter_00/MANIFEST.json",
    "iter_00/adapters/model0/adapter_model.safetensors",
    "iter_01/MANIFEST.json",
    "iter_01/plan.jsonl",
    "iter_01/pool.json",
    "iter_01/responses/a0-00000.jsonl",
    "iter_02/plan.jsonl",
    "iter_02/responses/a0-00000.jsonl",
    "iter_02/votes/a0-00000.jsonl",
    "iter_02/standing.json",
)


@pytest.mark.parametrize("change", STRANGE)
@pytest.mark.parametrize("name", STATE_FILES)
def test_something_else_in_the_place_of_a_file_is_named(
    name: str, change: Callable[[Path], None], state: Path
) -> None:
    before = manifests(state)
    change(state / name)
    with pytest.raises(SpartaError) as caught:
        launch(LaunchRequest(state=state, iterations=3), Screen())
    kind = {"link": "a symbolic link", "dangling": "a symbolic link", "pipe": "a named pipe"}
    said = kind.get(change.__name__, "a folder")
    assert str(state / name) in str(caught.value) and said in str(caught.value), caught.value
    others = {folder: content for folder, content in before.items() if name != f"{folder}/MANIFEST.json"}
    assert all((state / folder / "MANIFEST.json").read_bytes() == others[folder] for folder in others)


def test_no_command_blocks_on_a_pipe_in_the_place_of_a_file(state: Path) -> None:
    pipe(state / "iter_02" / "responses" / "a0-00000.jsonl")
    said = sentence(typed("status", state))
    assert "a0-00000.jsonl is a named pipe where a file belongs" in said


def test_a_pipe_in_the_place_of_the_keys_of_a_task_is_waited_for_by_nobody(state: Path) -> None:
    run = Run.open(StateDir(state))
    attempts = AttemptDir(run, Judge(), 2)
    pipe(attempts.keys_file(0, 0))
    with pytest.raises(SpartaError, match=f"{attempts.keys_file(0, 0)} is a named pipe where a file belongs"):
        attempts.keys(0, 0)


def test_a_pipe_in_the_place_of_a_log_is_waited_for_by_nobody(state: Path) -> None:
    attempts = AttemptDir(Run.open(StateDir(state)), Judge(), 2)
    attempts.logs.mkdir()
    os.mkfifo(attempts.logs / "1_0_log.out")
    assert last_lines(attempts) == "(no log)"


FAILING = """
import errno, os, sys
def failing(real):
    def listed(path="."):
        if str(path).endswith(sys.argv[2]):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real(path)
    return listed
os.scandir, os.listdir = failing(os.scandir), failing(os.listdir)
from sparta.commands.cli import main
sys.exit(main([sys.argv[1], "--state", sys.argv[3]]))
"""


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("launch", "jobs/iter_02/judge"),
        ("launch", "state"),
        ("launch", "jobs/lock"),
        ("status", "jobs/iter_02/judge"),
        ("status", "state"),
        ("evaluate", "jobs/lock"),
    ],
)
def test_a_disk_that_does_not_answer_ends_a_command_with_a_sentence(
    name: str, place: str, state: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING, name, place, str(state)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    said = sentence(done)
    assert place in said and "Stale file handle" in said, said


@pytest.mark.parametrize("name", ["recipe.yaml", "prompts.jsonl", "adapter_config.json"])
def test_what_a_person_named_is_asked_of_the_disk_in_the_same_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer is no reason to check the recipe."""
    path = tmp_path / name
    path.touch()
    real = io.open

    def failing(file: object, *rest: object, **options: object) -> object:
        if str(file) == str(path):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))
        return real(file, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", failing)
    readers: dict[str, Callable[[], object]] = {
        "recipe.yaml": lambda: load(path),
        "prompts.jsonl": lambda: list(UserItems(UserSource(path, str(path), "data.train"))),
        "adapter_config.json": lambda: read_object(path, "adapter"),
    }
    said = f"^The network disk that holds {path} did not answer .*: run the same"
    with pytest.raises(SpartaError, match=said), os_errors_in_words(tmp_path):
        readers[name]()
