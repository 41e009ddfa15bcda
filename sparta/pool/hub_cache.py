"""What the hub's own cache (HF_HOME, HF_HUB_CACHE) holds of a repository: files that other programs have downloaded are linked, not fetched again.

A file there is a link to its content, which is named by its hash. Only content that has this hash is taken.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sparta.engines.tokenizers import VOCABULARIES
from sparta.engines.weight_files import INDEX, WHOLE
from sparta.errors import SpartaError
from sparta.store import files
from sparta.training.adapter_folder import WEIGHTS

COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors")
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
        """Bytes of each file of the commit, by name, as the program that downloaded it knew them from the hub; None if it kept no list."""
        path = self.repository / "trees" / f"{self.commit}.json"
        if not path.is_file():
            return None
        kept = files.read_json(path, dict, "remove it, and fetch again where there is a network")
        if kept.get("format_version") != 1:
            return None
        return {name: int(file["size"]) for name, file in kept["files"].items()}

    def hash_of(self, name: str) -> str | None:
        """The hash that the content of the file `name` is named by; None for a file that is no such link: a disk without links, or a copied cache."""
        link = self.folder / name
        content = Path(os.readlink(link)).name if link.is_symlink() else ""
        return content if _HASH.fullmatch(content) else None

    def take(self, name: str, target: Path) -> bool:
        """Put the file `name` at `target`: weights as a hard link, or as a copy on another disk. False, and nothing is put, if its content is not
        that of its hash, or it has none.
        """
        link, known = self.folder / name, self.hash_of(name)
        if known is None or not _has_hash(link, known):
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


def require_whole(snapshot: Snapshot, reference: str, chosen: Mapping[str, int], code: bool = False) -> None:
    """Raises SpartaError if a file of the commit that a fetch would download is not among `chosen`, or may not be.

    Where no list of the commit's files was kept, a model needs weights, a tokenizer, and what its index, its modules and NEEDED name, and with
    `code` its configurations; a data set cannot be judged.
    """
    missing = sorted(set(chosen) - set(snapshot.sizes))
    if snapshot.listing is None:
        missing = _lacking(snapshot, chosen, code)
    if missing:
        raise SpartaError(
            f"{reference} is in the hub's cache in part only ({snapshot.folder} lacks {', '.join(missing[:3])}), and the hub cannot be reached: fetch it "
            "where there is a network"
        )


def _lacking(snapshot: Snapshot, chosen: Mapping[str, int], code: bool) -> list[str]:
    """What the snapshot of a commit whose files are not known lacks."""

    def read(name: str) -> Any:
        return json.loads((snapshot.folder / name).read_text(encoding="utf-8"))

    if "adapter_config.json" in chosen:
        return [] if WEIGHTS in chosen else [WEIGHTS]
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
    needed = {*shards, *(modules or NEEDED), *(_modules_of_code(read, chosen) if code else ())}
    sharded = any(_SHARD.fullmatch(name) and name not in shards for name in chosen)
    if sharded or not (shards or WHOLE in chosen):
        needed.add(INDEX if sharded else WHOLE)
    lacking = sorted(needed - set(snapshot.sizes))
    if sharded and not lacking:
        lacking = ["an index that names all of its weights"]
    if not any(fnmatch(name, pattern) for name in chosen for pattern in VOCABULARIES):
        lacking.append("a tokenizer")
    if not modules and not lacking and "chat_template.jinja" not in chosen:
        lacking = [] if "chat_template" in read("tokenizer_config.json") else ["a chat template"]
    return lacking


def _modules_of_code(read: Callable[[str], Any], chosen: Mapping[str, int]) -> Iterator[str]:
    """The files of code that the model's configurations name, but for those of other repositories (OWNER/NAME--module.Class)."""
    for name in ("config.json", "tokenizer_config.json"):
        for named in (read(name).get("auto_map") or {}).values() if name in chosen else ():
            for one in named if isinstance(named, list) else [named]:
                if one is not None and "--" not in one:
                    yield f"{one.partition('.')[0]}.py"


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
