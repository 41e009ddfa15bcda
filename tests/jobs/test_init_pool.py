"""jobs/init_pool.py as a person types it, and what is wrong with pools and their data in one sentence each."""

import json
import subprocess
from pathlib import Path

import pytest
from support import hub_server as loopback
from support.expert_recipes import write_lessons, write_school
from support.scripted_run import sentence, typed, write_recipe

from sparta.store.layout import StateDir


def test_the_pool_alone_is_made_then_it_is_there_then_a_launch_plays(tmp_path: Path) -> None:
    recipe, state = write_school(tmp_path, iterations=1), StateDir(tmp_path / "state")
    done = typed("init_pool", "--recipe", recipe, "--state", state.root)
    assert done.returncode == 0, done.stderr
    assert f"adapters in {state.iteration(0).adapters}" in done.stdout.replace("\n", " ")
    assert f"python jobs/launch.py --state {state.root}" in done.stdout
    assert "ada" in done.stdout and "each iteration" not in done.stdout
    assert state.committed() == [0]
    before = state.iteration(0).manifest.stat().st_mtime_ns
    again = typed("init_pool", "--state", state.root)
    assert again.returncode == 0 and "exists already; nothing to do" in again.stdout
    assert state.iteration(0).manifest.stat().st_mtime_ns == before
    played = typed("launch", "--state", state.root)
    assert played.returncode == 0, played.stderr
    assert state.committed() == [0, 1]
    assert "exists already" in typed("init_pool", "--state", state.root).stdout


def test_a_dry_run_checks_and_writes_nothing(tmp_path: Path) -> None:
    done = typed("init_pool", "--recipe", write_school(tmp_path), "--state", tmp_path / "state", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 of them trained from data, 24 rows" in done.stdout and "nothing was started" in done.stdout
    assert not (tmp_path / "state").exists()


def test_a_dry_run_of_the_toy_pool_reckons_its_memory(tmp_path: Path) -> None:
    done = typed(
        *("init_pool", "--recipe", "toy_pool", "--state", tmp_path / "state", "--dry-run"),
        *("--cluster", "inline", "--set", "engine.device=cuda"),
    )
    assert done.returncode == 0, done.stderr
    assert "10 of them trained from data" in done.stdout
    assert "SFT of adder and 9 more" in done.stdout and "GiB" in done.stdout


def test_newer_commits_are_for_fetching_alone(tmp_path: Path) -> None:
    done = typed("init_pool", "--recipe", write_school(tmp_path), "--state", tmp_path / "state", "--update")
    assert done.returncode == 2 and "--update needs --fetch" in done.stderr


def test_a_pool_of_the_hub_is_fetched_and_then_needs_no_network(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    models, state = tmp_path / "models", tmp_path / "state"
    pool = {
        "base": "hub:org/base",
        "models": [{"name": name, "adapter": f"hub:org/{name}"} for name in tiny_adapters],
        "folder": str(models),
    }
    recipe = write_recipe(tmp_path, models=0, pool=pool, engine={"kind": "hf", "device": "cpu"})
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}

    def asked(*more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        given = ("--recipe", recipe, "--state", state, "--cluster", "inline", *more)
        return typed("init_pool", *given, HF_HOME=str(tmp_path / "cache"), **environment)

    unfetched = sentence(asked("--dry-run", **offline))
    assert "hub:org/base has not been fetched to" in unfetched and "--fetch" in unfetched
    with loopback.serving() as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x"}
        for name, folder in {"base": tiny_base, **tiny_adapters}.items():
            hub.add(f"org/{name}", folder)
        published = hub.repositories.pop("org/cem")
        said = sentence(asked("--fetch", **online))
        assert said.startswith("hub:org/cem is not on the hub, or is private: check the name at")
        hub.repositories["org/cem"] = published
        published.gated = True
        said = sentence(asked("--fetch", **online))
        assert said.startswith("hub:org/cem is gated: accept its terms at huggingface.co/org/cem")
        assert "hub:org/cem has not been fetched to" in sentence(asked("--dry-run", **offline))
        published.gated = False
        done = asked("--fetch", **online)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("is there already") == 3 and "org/cem: fetched to" in done.stdout
    assert not state.exists()
    ready = asked("--dry-run", **offline)
    assert ready.returncode == 0, ready.stderr
    assert "nothing was started" in ready.stdout


def spoil(path: Path, what: str) -> None:
    """Make the data of an expert unusable."""
    write_lessons(path, 3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if what == "empty":
        rows = []
    elif what == "ends with a question":
        rows[1]["messages"].append({"role": "user", "content": "And then?"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("empty", "bea.jsonl has no row to train on"),
        ("ends with a question", "bea.jsonl, line 2: bea1 "),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_named(what: str, said: str, tmp_path: Path) -> None:
    spoil(tmp_path / "lessons" / "bea.jsonl", what)
    recipe = write_school(tmp_path)
    for more in ((), ("--dry-run",)):
        error = sentence(typed("init_pool", "--recipe", recipe, "--state", tmp_path / "state", *more))
        assert error.startswith("model bea: ") and said in error
    assert not (tmp_path / "state" / "run.json").exists()


@pytest.mark.parametrize("data", ["code_alpacca", "embedded:juggler", "nowhere.jsonl"])
def test_unknown_data_is_refused_before_anything_is_written(data: str, tmp_path: Path) -> None:
    others = [{"name": "zoe", "sft": {"data": data}}]
    recipe = write_school(tmp_path, others=others)
    error = sentence(typed("init_pool", "--recipe", recipe, "--state", tmp_path / "state"))
    assert "zoe" in error and data.removeprefix("embedded:") in error
    assert not (tmp_path / "state" / "run.json").exists()


def test_a_row_longer_than_the_context_is_dropped_counted_and_said(tmp_path: Path) -> None:
    path = write_lessons(tmp_path / "lessons" / "ada.jsonl", 6)
    path.write_text(path.read_text().replace("3 it is.", "3 it is." * 100))
    recipe = write_school(tmp_path, sft={"max_length": 300})
    done = typed("init_pool", "--recipe", recipe, "--state", tmp_path / "state")
    assert done.returncode == 0, done.stderr
    [line] = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["ada"]]
    assert line[-6:-3] == ["5", "1", "1"] or line[2:4] == ["5", "1"], line


def test_data_of_which_no_row_fits_makes_no_expert(tmp_path: Path) -> None:
    recipe = write_school(tmp_path, sft={"max_length": 8})
    error = sentence(typed("init_pool", "--recipe", recipe, "--state", tmp_path / "state"))
    assert "ada" in error and "pool.sft.max_length" in error
