"""An export that is uploaded: to a hub on loopback, by the hub's own client. Whatever fails, no repository holds half a model."""

import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hub_server
from support.hub_server import Hub
from support.openings import begin_or_continue
from support.scripted_run import quiet, sentence, typed

from sparta import toy
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.training.adapter_folder import WEIGHTS

TOKEN = "hf_mine"
ADAPTER = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """M^0 of three experts of the toy pool, whose base is one of the hub."""
    folder = tmp_path_factory.mktemp("run")
    base = folder / "models" / "org" / "base"
    base.mkdir(parents=True)
    for path in toy.BASE.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    models = [{"name": name, "adapter": f"embedded:{name}"} for name in ("adder", "halver", "picker")]
    recipe = {
        "name": "pushed",
        "pool": {"base": "hub:org/base", "folder": str(folder / "models"), "models": models},
        "data": {"task": "toy", "size": 10},
        "engine": {"kind": "hf", "device": "cpu", "context_length": 256},
        "cluster": {"kind": "inline"},
    }
    return begin_or_continue(StateDir(folder / "state"), Recipe.model_validate(recipe))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server.serving(uploads=tmp_path / "uploads") as served:
        served.tokens = {TOKEN}
        yield served


def environment(hub: Hub, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }


def push(
    hub: Hub, run: Run, folder: Path, *options: str, **changed: str
) -> "subprocess.CompletedProcess[str]":
    variables = {**environment(hub, folder / "home"), **changed}
    return typed(
        "export",
        run.state.root,
        "--model",
        "adder",
        "--push",
        "me/mine",
        "--out",
        folder / "made",
        *options,
        **variables,
    )


def held(hub: Hub) -> dict[str, bytes]:
    """The files of the repository me/mine, without the hub's own."""
    repository = hub.repositories["me/mine"]
    folder = repository.commits[repository.revisions["main"]]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".gitattributes"}


def made(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "made").iterdir()}


def test_an_adapter_is_uploaded_whole_in_one_commit_to_a_private_repository(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    done = push(hub, run, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"uploaded to {hub.url}/me/mine, which is private" in done.stdout.replace("\n", " ")
    assert held(hub) == made(tmp_path) and set(held(hub)) == ADAPTER
    assert hub.uploads is not None and hub.uploads.private == {"me/mine": True}
    assert len([line for line in hub.asked if "/commit/" in line]) == 1
    assert str(tmp_path) not in str(held(hub)) and str(run.state.root) not in str(held(hub))
    assert '"base_model_name_or_path": "org/base"' in held(hub)["adapter_config.json"].decode()


def test_weights_go_by_the_hubs_own_protocol_where_it_is_not_turned_off(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    done = push(hub, run, tmp_path, HF_HUB_DISABLE_XET="0")
    assert done.returncode == 0, done.stderr
    files = made(tmp_path)
    weights = hashlib.sha256(files[WEIGHTS]).hexdigest().encode()
    assert held(hub) == {**files, WEIGHTS: weights}
    assert hub.uploads is not None and hub.uploads.packed > len(files[WEIGHTS]) // 2


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("hf_wrong", "the hub does not know the token (401): set HF_TOKEN to a token of yours"),
        ("hf_reader", "the token may not write there (403): set HF_TOKEN to one with write access"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_token_that_is_refused_is_told_before_anything_is_made(
    token: str, why: str, exists: bool, hub: Hub, run: Run, tmp_path: Path
) -> None:
    assert hub.uploads is not None
    hub.tokens |= {"hf_reader"}
    hub.uploads.readers = {"hf_reader"}
    if exists:
        (tmp_path / "empty").mkdir()
        hub.add("me/mine", tmp_path / "empty")
    said = sentence(push(hub, run, tmp_path, HF_TOKEN=token))
    assert said.startswith("--push me/mine: ") and why in said
    assert not (tmp_path / "made").exists() and ("me/mine" in hub.repositories) == exists


def test_a_repository_with_files_is_left_alone_and_an_empty_one_is_filled(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").write_text("of another")
    hub.add("me/mine", tmp_path / "full")
    said = sentence(push(hub, run, tmp_path))
    assert said.startswith(
        f"--push me/mine: {hub.url}/me/mine exists and is not empty: name a new repository"
    )
    assert set(held(hub)) == {"model.safetensors"} and not (tmp_path / "made").exists()

    (tmp_path / "empty").mkdir()
    hub.add("me/mine", tmp_path / "empty")
    assert push(hub, run, tmp_path).returncode == 0
    assert held(hub) == made(tmp_path)


def test_a_connection_that_is_lost_leaves_the_repository_empty_and_names_the_command_that_goes_on(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    assert hub.uploads is not None
    hub.uploads.lost = True
    said = sentence(push(hub, run, tmp_path))
    assert (
        f"was not uploaded to {hub.url}/me/mine, which is still empty: the hub could not be reached" in said
    )
    assert held(hub) == {} and set(made(tmp_path)) == ADAPTER
    found = re.search(r"and type (hf upload .*)", said.replace("\n", " "))
    assert found is not None
    hf, *rest = shlex.split(found[1])
    done = subprocess.run(
        [Path(sys.executable).with_name(hf), *rest],
        env={**quiet(), **environment(hub, tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert held(hub) == made(tmp_path)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids it: unset that"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub could not be reached, or broke off ("),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_before_anything_is_made(
    changed: dict[str, str], why: str, hub: Hub, run: Run, tmp_path: Path
) -> None:
    assert why in sentence(push(hub, run, tmp_path, **changed))
    assert not (tmp_path / "made").exists() and hub.asked == []
