"""The cache of the hub's own library: what it has of a model is linked and not fetched again, and is enough where there is no network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import hub_server
from support.hub_fetches import names, refused, run, source
from support.hub_server import Hub
from support.scripted_run import DEADLINE, quiet

from sparta.errors import SpartaError
from sparta.pool import hub_download
from sparta.pool.hub_cache import Snapshot, require_whole
from sparta.screen import Screen

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
ALONE = {"adapter": "none"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server.serving() as served:
        yield served


@pytest.fixture
def commit(hub: Hub, tiny_base: Path, tmp_path: Path) -> str:
    """That of a published base."""
    base = tmp_path / "published"
    base.mkdir()
    for path in tiny_base.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (base / "README.md").write_text("not wanted")
    return hub.add("org/base", base)[-1]


def cached(hub: Hub, home: Path, *patterns: str) -> Path:
    """The snapshot that the hub's library makes in its cache."""
    program = "import sys, huggingface_hub as h; print(h.snapshot_download('org/base', allow_patterns=sys.argv[1:] or None))"
    done = subprocess.run(
        [sys.executable, "-c", program, *patterns],
        env={**quiet(), "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_a_model_in_the_cache_is_linked_and_nothing_of_it_fetched_again(
    hub: Hub, commit: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    snapshot = cached(hub, models / "cache")
    before = len(hub.downloaded("model.safetensors"))
    said = run(hub, models, **ALONE)
    assert "of which" in said and "are here already" in said.replace("\n", " ")
    assert len(hub.downloaded("model.safetensors")) == before
    made = models / "org" / "base"
    assert names(made) == {*FILES, "source.json"} and source(made)["commit"] == commit
    linked = {name for name in FILES if os.path.samefile(made / name, snapshot / name)}
    assert linked == {"model.safetensors"} and not any((made / name).is_symlink() for name in FILES)


def test_it_is_enough_without_a_network_and_the_record_is_that_of_a_fetch(
    hub: Hub, commit: str, tmp_path: Path
) -> None:
    run(hub, tmp_path / "fetched", **ALONE)
    cached(hub, tmp_path / "models" / "cache")
    asked = len(hub.asked)
    said = run(hub, tmp_path / "models", environment=OFFLINE, **ALONE).replace("\n", " ")
    assert "linked from the hub's cache to" in said and len(hub.asked) == asked
    made, fetched = (tmp_path / folder / "org" / "base" for folder in ("models", "fetched"))
    assert source(made) == source(fetched) and names(made) == names(fetched)
    for name in FILES:
        assert (made / name).read_bytes() == (fetched / name).read_bytes()
    assert "is there already" in run(hub, tmp_path / "models", environment=OFFLINE, **ALONE)


def test_a_pinned_commit_is_taken_and_another_one_is_not(hub: Hub, commit: str, tmp_path: Path) -> None:
    cached(hub, tmp_path / "models" / "cache")
    run(hub, tmp_path / "models", base=f"hub:org/base@{commit}", environment=OFFLINE, **ALONE)
    other = f"hub:org/base@{'0' * 40}"
    assert "HF_HUB_OFFLINE forbids fetching it" in refused(
        hub, tmp_path / "models", base=other, environment=OFFLINE, **ALONE
    )


def test_a_part_of_a_model_is_completed_with_a_network_and_refused_without(
    hub: Hub, commit: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    cached(hub, models / "cache", "config.json", "model.safetensors")
    said = refused(hub, models, environment=OFFLINE, **ALONE)
    assert said.startswith("hub:org/base is in the hub's cache in part only (") and "lacks " in said
    assert not (models / "org" / "base").exists()
    before = len(hub.downloaded("model.safetensors"))
    run(hub, models, **ALONE)
    assert len(hub.downloaded("model.safetensors")) == before
    assert names(models / "org" / "base") == {*FILES, "source.json"}


@pytest.mark.parametrize("lost", ["generation_config.json", "chat_template.jinja", "config.json"])
def test_a_cache_without_a_list_of_its_files_must_have_what_a_model_needs(
    lost: str, hub: Hub, commit: str, tmp_path: Path
) -> None:
    """Older versions of the library keep no list."""
    models = tmp_path / "models"
    snapshot = cached(hub, models / "cache")
    (snapshot.parents[1] / "trees" / f"{commit}.json").unlink()
    config = json.loads((tmp_path / "published" / "tokenizer_config.json").read_text())
    kept = (snapshot / lost).readlink()
    (snapshot / lost).unlink()
    if lost == "chat_template.jinja" and "chat_template" in config:
        run(hub, models, environment=OFFLINE, **ALONE)
        return
    assert refused(hub, models, environment=OFFLINE, **ALONE)
    (snapshot / lost).symlink_to(kept)
    run(hub, models, environment=OFFLINE, **ALONE)
    assert names(models / "org" / "base") == {*FILES, "source.json"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_fetched_again_with_a_network_and_refused_without(
    name: str, hub: Hub, commit: str, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    path = (cached(hub, models / "cache") / name).resolve()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = refused(hub, models, environment=OFFLINE, **ALONE)
    assert said.startswith("hub:org/base is damaged in the hub's cache (") and name in said
    assert not (models / "org" / "base").exists()
    run(hub, models, **ALONE)
    assert (models / "org" / "base" / name).read_bytes() == whole


INDEXED = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
CODED = {"auto_map": {"AutoModel": "modeling_own.Model", "AutoConfig": "org/other--configuration.Config"}}
BASE: dict[str, object] = {
    "config.json": {},
    "generation_config.json": {},
    "tokenizer_config.json": {"chat_template": "x"},
    "tokenizer.json": {},
    "model.safetensors": {},
}
SHARDS: dict[str, object] = {name: {} for name in INDEXED["weight_map"].values()}
SHARDED = {**BASE, **SHARDS, "model.safetensors.index.json": INDEXED}
del SHARDED["model.safetensors"]


def torn(folder: Path, contents: dict[str, object], code: bool = False) -> None:
    """Judges a snapshot with these files, of which no list was kept."""
    snapshot = Snapshot(folder, "0" * 40)
    snapshot.folder.mkdir(parents=True)
    for name, content in contents.items():
        (snapshot.folder / name).write_text(json.dumps(content))
    require_whole(snapshot, "hub:org/base", snapshot.sizes, code)


@pytest.mark.parametrize(
    ("whole", "lost", "said"),
    [
        (BASE, "model.safetensors", "lacks model.safetensors)"),
        (SHARDED, "model-00002-of-00002.safetensors", "lacks model-00002-of-00002.safetensors)"),
        (SHARDED, "model.safetensors.index.json", "lacks model.safetensors.index.json)"),
        (BASE, "tokenizer.json", "lacks a tokenizer)"),
        ({**BASE, "config.json": CODED, "modeling_own.py": ""}, "modeling_own.py", "lacks modeling_own.py)"),
        ({"adapter_config.json": {}, "adapter_model.safetensors": {}}, "adapter_model.safetensors", "lacks adapter_model"),
    ],
)  # fmt: skip
def test_without_a_list_each_file_that_a_model_cannot_do_without_is_missed(
    whole: dict[str, object], lost: str, said: str, tmp_path: Path
) -> None:
    torn(tmp_path / "whole", whole, code=True)
    rest = {name: content for name, content in whole.items() if name != lost}
    with pytest.raises(SpartaError) as caught:
        torn(tmp_path / "torn", rest, code=True)
    assert "in part only" in str(caught.value) and said in str(caught.value)


def test_code_is_needed_only_where_it_is_taken_and_any_vocabulary_is_a_tokenizer(tmp_path: Path) -> None:
    torn(tmp_path / "no code", {**BASE, "config.json": CODED})
    rest = {name: content for name, content in BASE.items() if name != "tokenizer.json"}
    torn(tmp_path / "vocabulary", {**rest, "tokenizer.model": ""})


def test_a_copied_cache_has_no_hashes_and_is_not_called_damaged(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path / "cache", "0" * 40)
    snapshot.folder.mkdir(parents=True)
    for name, content in BASE.items():
        (snapshot.folder / name).write_text(json.dumps(content))
    wanted = hub_download.Wanted("model", "hub:org/base", tmp_path / "models" / "base")

    def said() -> str:
        with pytest.raises(SpartaError) as caught:
            hub_download._link(snapshot, wanted, Screen())
        return str(caught.value)

    assert "is a copy and no link, so no hash says whether it is whole): fetch it where" in said()
    for name in BASE:
        content = tmp_path / "cache" / "blobs" / f"{abs(hash(name)):040x}"[-40:]
        content.parent.mkdir(exist_ok=True)
        (snapshot.folder / name).rename(content)
        (snapshot.folder / name).symlink_to(content)
    assert "is damaged in the hub's cache (" in said() and not wanted.folder.exists()
