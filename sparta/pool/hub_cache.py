"""What the hub's own cache (HF_HOME, HF_HUB_CACHE) holds of a repository: files that other programs have downloaded are linked, not fetched again.

A file there is a link to its content, which is named by its hash. Only content that has this hash is taken.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sparta.errors import SpartaError
from sparta.store import files

COMMIT = re.compile(r"[0-9a-f]{40}")
NEEDED = ("config.json", "generation_config.json", "tokenizer_config.json")
"""Files of a base without which a snapshot of unknown extent counts as partial."""


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit that the cache holds, perhaps not all. repository: the cache's folder of it."""

    repository: Path
    commit: str

    @property
    def folder(self) -> Path:
        return self.repository / "snapshots" / self.commit

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file that is there, by name."""
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    @cached_property
    def listing(self) -> dict[str, int] | None:
        """Bytes of each file of the commit, by name, as the hub told the program that downloaded it; None if that kept no list."""
        path = self.repository / "trees" / f"{self.commit}.json"
        if not path.is_file():
            return None
        told = files.read_json(path, dict, "remove it, and fetch again where there is a network")
        if told.get("format_version") != 1:
            return None
        return {name: int(file["size"]) for name, file in told["files"].items()}

    def take(self, name: str, target: Path) -> bool:
        """Put the file `name` at `target`: weights as a hard link, or as a copy on another disk. False, and nothing is put, if its content is not
        that of its hash.
        """
        link = self.folder / name
        if not link.is_symlink() or not _has_hash(link, Path(os.readlink(link)).name):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        content = os.path.realpath(link)
        # People edit small files, and that must not change the cache.
        if not (name.endswith(".safetensors") and _linked(content, target)):
            shutil.copyfile(content, target)
        return True


def snapshot_of(kind: Literal["model", "dataset"], repository: str, revision: str | None) -> Snapshot | None:
    """The snapshot of `revision`, None for the newest that the cache knows; None if there is none."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}"
    commit, named = revision or "main", folder / "refs" / (revision or "main")
    if not COMMIT.fullmatch(commit):
        if not named.is_file():
            return None
        commit = named.read_text(encoding="utf-8").strip()
    found = Snapshot(folder, commit)
    return found if COMMIT.fullmatch(commit) and found.folder.is_dir() else None


def require_whole(snapshot: Snapshot, reference: str, chosen: Mapping[str, int]) -> None:
    """Raises SpartaError if a file of the commit that a fetch would download is not among `chosen`, or may not be.

    Where no list of the commit's files was kept, a model needs what its index, its modules and NEEDED name; a data set cannot be judged.
    """
    missing = sorted(set(chosen) - set(snapshot.sizes))
    if snapshot.listing is None:
        missing = _lacking(snapshot, chosen)
    if missing:
        raise SpartaError(
            f"{reference} is in the hub's cache in part only ({snapshot.folder} lacks {', '.join(missing[:3])}), and the hub cannot be reached: fetch it "
            "where there is a network"
        )


def _lacking(snapshot: Snapshot, chosen: Mapping[str, int]) -> list[str]:
    """What the snapshot of a commit whose files are not known lacks."""

    def read(name: str) -> Any:
        return json.loads((snapshot.folder / name).read_text(encoding="utf-8"))

    if "adapter_config.json" in chosen:
        return []
    if "config.json" not in chosen:
        return ["the list of its files"]
    shards = {
        shard
        for name in chosen
        if name.endswith(".safetensors.index.json")
        for shard in read(name)["weight_map"].values()
    }
    modules = (
        [f"{module['path']}/config.json" for module in read("modules.json") if module["path"]]
        if "modules.json" in chosen
        else []
    )
    needed = {*shards, *(modules or NEEDED)}
    lacking = sorted(needed - set(snapshot.sizes))
    if not modules and not lacking and "chat_template.jinja" not in chosen:
        lacking = [] if "chat_template" in read("tokenizer_config.json") else ["a chat template"]
    return lacking


def _linked(content: str, target: Path) -> bool:
    """Whether `target` could be made a hard link: not on another disk, on one without links, or to a file of another user's."""
    try:
        os.link(content, target)
    except OSError:
        return False
    return True


def _has_hash(path: Path, name: str) -> bool:
    """Whether the content of `path` has the hash `name`: SHA-256 of a large file, git's SHA-1 of a small one."""
    if len(name) == 64:
        return files.sha256_file(path) == name
    content = files.read_bytes(path)
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest() == name
