"""What a person can get wrong: a clear sentence, a status that is not 0, nothing lost."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.scripted_run import (
    DEADLINE,
    ROOT,
    Launched,
    advance,
    begin,
    committed,
    manifests,
    sentence,
    typed,
    wait_until,
    write_recipe,
)

from sparta.store.layout import StateDir
from sparta.store.shards import LineCounter


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two committed iterations and one begun."""
    folder = tmp_path_factory.mktemp("original")
    run = begin(folder)
    advance(run, 1)
    advance(run, 2)
    advance(run, 3, upto="generate")
    return folder


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(original / "state", tmp_path / "state"))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# --- the state


def test_a_state_of_another_recipe_is_refused_with_the_difference(state: Path, original: Path) -> None:
    before = committed(state)
    recipe = original / "recipe.yaml"
    said = sentence(typed("launch", "--recipe", recipe, "--state", state, "--set", "match.k=2"))
    assert f"{state} was started with another recipe" in said and "match.k: 5, now 2" in said
    assert committed(state) == before
    assert typed("launch", "--recipe", recipe, "--state", state).returncode == 0


def test_a_state_of_another_schema_version_is_refused(state: Path) -> None:
    replace(state / "run.json", '"schema_version": 1', '"schema_version": 2')
    before = committed(state)
    for command, arguments in (("launch", ["--state", state]), ("status", [state]), ("evaluate", [state])):
        said = sentence(typed(command, *arguments))
        assert f"{state / 'run.json'} has schema version 2, this code reads version 1" in said
    assert committed(state) == before


def change_a_score(path: Path) -> None:
    first, *rest = path.read_text().splitlines(keepends=True)
    row = json.loads(first)
    row["score"] = 1.0 if row["score"] != 1.0 else 2.0
    path.write_text("".join([json.dumps(row) + "\n", *rest]))


EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "standing": (lambda path: replace(path, "reputation", "reputatiom"), "iter_01/standing.json"),
    "plan": (lambda path: replace(path, "question", "Question"), "iter_01/plan.jsonl"),
    "pair": (lambda path: replace(path, "quality", "qualitY"), "iter_02/preferences.jsonl"),
    "vote": (change_a_score, "iter_01/votes/a0-00000.jsonl"),
    "adapter": (flip_last_byte, "iter_02/adapters/model1/adapter_model.safetensors"),
    "first adapter": (flip_last_byte, "iter_00/adapters/model2/adapter_model.safetensors"),
    "adapter gone": (Path.unlink, "iter_01/adapters/model1/adapter_config.json"),
    "pool": (lambda path: replace(path, "model1", "model9"), "iter_01/pool.json"),
    "manifest": (lambda path: replace(path, '"bytes": ', '"bytes": 1'), "iter_01/MANIFEST.json"),
    "instructions": (lambda path: replace(path, "question", "Question"), "data/train.jsonl"),
    "recipe": (lambda path: replace(path, "alpha: 0.6", "alpha: 0.5"), "recipe.yaml"),
}


@pytest.mark.parametrize(("edit", "name"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_file_is_named(edit: Callable[[Path], None], name: str, state: Path) -> None:
    edit(state / name)
    before = committed(state)
    done = typed("launch", "--state", state)
    said = sentence(done)
    if name.endswith("MANIFEST.json"):
        # Its content no longer agrees with a file that it names, or with the manifest after it.
        assert str(state / "iter_01") in said
    else:
        assert str(state / name) in said or (
            str((state / name).parent) in said and name.split("/")[-1] in said
        )
    assert committed(state) == before


def test_what_a_torn_row_of_the_current_iteration_costs_is_that_row(state: Path, original: Path) -> None:
    [path] = (state / "iter_03/responses").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert typed("launch", "--state", state).returncode == 0


def test_a_malformed_row_of_the_current_iteration_is_named_with_its_line(state: Path) -> None:
    [path] = (state / "iter_03/responses").iterdir()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "not json\n", *lines[2:]]))
    before = committed(state)
    assert f"{path}, line 2 is not a valid Response" in sentence(typed("launch", "--state", state))
    assert committed(state) == before


@pytest.mark.parametrize(
    ("iteration", "said"),
    [
        ("iter_03", "iteration 3 of {state} is not committed (committed: 0 to 2)"),
        ("iter_07", "{state}/iter_07 does not exist: {state} holds iter_00, iter_01, iter_02, iter_03"),
        ("jobs", "{state}/jobs is not an iteration"),
    ],
)
@pytest.mark.parametrize("fork", [False, True], ids=["resume", "fork"])
def test_going_back_to_what_is_not_committed_is_refused(
    iteration: str, said: str, fork: bool, state: Path, tmp_path: Path
) -> None:
    before = committed(state)
    branch = ["--fork", tmp_path / "branch"] if fork else []
    assert said.format(state=state) in sentence(typed("launch", "--resume", state / iteration, *branch))
    assert committed(state) == before
    assert not (state / "superseded").exists()


def test_a_second_launch_is_refused_and_does_not_disturb_the_first(
    tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, engine={"kind": "scripted", "scripted": {"delay": 0.2}}, iterations=1)
    arguments = ("--recipe", recipe, "--state", tmp_path / "state")
    first = launched(*arguments)
    wait_until((tmp_path / "state/run.json").exists)
    for _ in range(2):
        said = sentence(typed("launch", *arguments))
        assert f"{tmp_path / 'state'} is being driven by process {first.pid}" in said
    _, err = first.communicate(timeout=DEADLINE)
    assert first.returncode == 0, err
    assert "nothing to do" in typed("launch", *arguments).stdout


# --- the recipe's files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "a"}\n{"prompt"\n', "prompts.jsonl, line 2: not JSON"),
        ("", "prompts.jsonl has no instructions"),
        (
            '{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n',
            "line 2: the prompt id 1 was used in line 1",
        ),
    ],
)
def test_a_malformed_prompt_file_is_named_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    good = (tmp_path / "prompts.jsonl").read_text()
    (tmp_path / "prompts.jsonl").write_text(text)
    for dry in ([], ["--dry-run"]):
        assert said in sentence(typed("launch", "--recipe", recipe, "--state", tmp_path / "state", *dry))
    (tmp_path / "prompts.jsonl").write_text(good)
    assert typed("launch", "--recipe", recipe, "--state", tmp_path / "state", "--iters", 1).returncode == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["judging.mode=expected", "judging.labels=['1', '10']"],
            "judging label '10' is not one token after the prompt",
        ),
        (
            ["engine.kind=vllm", "engine.vllm.max_rank=4"],
            "model adder: its adapter has rank 8, more than engine.vllm.max_rank, which is 4",
        ),
        (["engine.kind=api"], "engine.kind is api and there is no endpoint: set engine.api.url"),
        (
            ["engine.kind=api", "engine.api.url=https://api.example.org/v1", "engine.api.load_adapters=true"],
            "OPENAI_API_KEY",
        ),
        (
            ["engine.kind=api", "engine.api.url=http://127.0.0.1:9/v1"],
            "engine.api.load_adapters",
        ),
    ],
)
def test_an_engine_that_cannot_work_is_refused_before_anything_is_written(
    settings: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = [part for setting in settings for part in ("--set", setting)]
    for dry in ([], ["--dry-run"]):
        done = typed("launch", "--recipe", "toy", "--state", tmp_path / "state", *given, *dry)
        assert said in sentence(done)
        assert not (tmp_path / "state" / "run.json").exists()


def test_a_judge_that_is_mostly_unreadable_stops_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    unreadable = {"kind": "scripted", "scripted": {"unreadable": {"model1": 1.0}}}
    recipe = write_recipe(tmp_path, engine=unreadable)
    done = typed("launch", "--recipe", recipe, "--state", tmp_path / "state")
    said = sentence(done)
    assert "votes of judge model1 could not be read" in said and said.count("I would rather not say.") == 3
    assert not (tmp_path / "state/iter_01/training").exists()
    seen = typed("status", tmp_path / "state")
    assert seen.returncode == 1 and "votes of judge model1 could not be read" in seen.stdout


@pytest.fixture(scope="module")
def tiny_recipe(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> Callable[..., Path]:
    def write(**adapters: Path) -> Path:
        chosen = {**tiny_adapters, **adapters}
        models = [{"name": name, "adapter": str(path)} for name, path in chosen.items()]
        pool = {"base": str(tiny_base), "models": models}
        return write_recipe(tmp_path_factory.mktemp("tiny"), pool=pool, engine={"kind": "hf"}, combats=2)

    return write


@pytest.mark.parametrize("fault", ["missing", "pickle", "torn", "for another base"])
def test_an_adapter_that_cannot_be_used_is_named(
    fault: str,
    tiny_recipe: Callable[..., Path],
    tiny_base: Path,
    tiny_adapters: dict[str, Path],
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad"
    if fault != "missing":
        shutil.copytree(tiny_adapters["bea"], bad)
    weights = bad / "adapter_model.safetensors"
    if fault == "pickle":
        weights.rename(bad / "adapter_model.bin")
    elif fault == "torn":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "for another base":
        config = json.loads((tiny_base / "config.json").read_text())
        other = tmp_path / "base"
        shutil.copytree(tiny_base, other)
        (other / "config.json").write_text(json.dumps({**config, "hidden_size": 32, "intermediate_size": 48}))
    said = {
        "missing": "there is no such folder",
        "pickle": "has its weights in adapter_model.bin, a pickle",
        "torn": "is not a whole safetensors file",
        "for another base": "is for another base",
    }
    recipe = tiny_recipe(bea=bad)
    more = ["--set", f"pool.base={tmp_path / 'base'}"] if fault == "for another base" else []
    model = "model ada: " if fault == "for another base" else "model bea: "
    for dry in ([], ["--dry-run"]):
        done = typed("launch", "--recipe", recipe, "--state", tmp_path / "state", *more, *dry)
        assert sentence(done).startswith(model) and said[fault] in sentence(done)
    assert not (tmp_path / "state/run.json").exists()
    assert (
        typed("launch", "--recipe", tiny_recipe(), "--state", tmp_path / "dry", "--dry-run").returncode == 0
    )


# --- the machine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many KiB, or makes it that large; skips where this user may not mount."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def size(kib: int) -> Path:
        remount = "remount," if os.path.ismount(disk) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{remount}size={kib}k", "tmpfs", str(disk)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
        return disk

    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    try:
        yield size
    finally:
        if os.path.ismount(disk):
            subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("kib", [60, 240, 420])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    kib: int, small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path)
    state = small_disk(kib) / "state"
    said = sentence(typed("launch", "--recipe", recipe, "--state", state))
    assert f"The disk or quota that holds {state}" in said and "is full" in said
    before = manifests(state)
    small_disk(50_000)
    done = typed("launch", "--recipe", recipe, "--state", state)
    assert done.returncode == 0, done.stderr
    assert typed("launch", "--recipe", recipe, "--state", tmp_path / "roomy").returncode == 0
    assert before.items() <= manifests(state).items()
    assert manifests(state) == manifests(tmp_path / "roomy")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_after_ctrl_c_the_command_that_is_printed_goes_on(
    cluster: str, sign: signal.Signals, tmp_path: Path, launched: Launched
) -> None:
    recipe = write_recipe(tmp_path, engine={"kind": "scripted", "scripted": {"delay": 0.05}}, iterations=1)
    state = StateDir(tmp_path / "my state")
    process = launched("--recipe", recipe, "--state", state.root, "--cluster", cluster)
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= 4)
    done_by_then = LineCounter(state.iteration(1).responses).fresh()
    os.killpg(process.pid, sign)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "finished work is on disk" in err
    shown = shlex.split(err.strip().splitlines()[-1])
    assert shown == ["python", "jobs/launch.py", "--state", str(state.root)]
    assert LineCounter(state.iteration(1).responses).fresh() >= done_by_then
    assert typed("status", state.root).returncode == 3
    again = subprocess.run(
        [sys.executable, *shown[1:]], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert again.returncode == 0, again.stderr
    assert state.committed() == [0, 1]
