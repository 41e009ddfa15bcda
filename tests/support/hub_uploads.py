"""What the loopback hub does with uploads: new repositories, large files by the LFS protocol or by Xet, commits.

Nothing is visible in a repository before its commit. What comes by Xet is not unpacked: the repository then holds the hash of a file instead of it.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = ".safetensors"


class Refused(Exception):
    """An answer that is no success. status: of HTTP. told: the answer's content."""

    def __init__(self, status: int, message: str, **told: str) -> None:
        super().__init__(message)
        self.status = status
        self.told = told


@dataclass
class Uploads:
    """folder: where commits lie. private: by OWNER/NAME. readers: tokens that may only read. lost: whether the connection is lost at the next
    commit. large: content by its SHA-256. packed: bytes that came by Xet.
    """

    folder: Path
    private: dict[str, bool] = field(default_factory=dict)
    readers: set[str] = field(default_factory=set)
    lost: bool = False
    large: dict[str, bytes] = field(default_factory=dict)
    packed: int = 0

    def new_folder(self, name: str, before: Path | None) -> Path:
        """The folder of the next commit of the repository `name`, with the files of the one before."""
        number = len(list(self.folder.glob(f"{name}/*")))
        made = self.folder / name / str(number)
        made.mkdir(parents=True)
        for path in before.rglob("*") if before is not None else ():
            if path.is_file():
                target = made / path.relative_to(before or path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        return made


def answer(hub: Any, parts: list[str], body: bytes, token: str) -> Mapping[str, object] | None:
    """The answer to POST or PUT at the path `parts`; None for a connection that is lost. Raises Refused."""
    uploads: Uploads = hub.uploads
    if parts == ["api", "validate-yaml"]:
        return {"warnings": [], "errors": []}
    if parts[0] == "large":
        if hashlib.sha256(body).hexdigest() != parts[1]:
            raise Refused(400, "another content than announced")
        uploads.large[parts[1]] = body
        return {}
    if parts[:2] == ["v1", "xorbs"]:
        uploads.packed += len(body)
        return {"was_inserted": True}
    if parts == ["v1", "shards"]:
        return {"result": 1}
    if parts[0] in ("v1", "v2"):
        # The client goes on without these.
        raise Refused(404, "not served")
    if token in uploads.readers:
        raise Refused(403, "you may not write")
    if parts == ["api", "repos", "create"]:
        asked = json.loads(body)
        return _create(hub, f"{asked['organization']}/{asked['name']}", asked.get("visibility") == "private")
    if parts[-2:] == ["objects", "batch"]:
        return {"objects": [_object(hub, one) for one in json.loads(body)["objects"]]}
    _, _, owner, name, what, _ = parts
    if f"{owner}/{name}" not in hub.repositories:
        raise Refused(404, "no such repository")
    do: Callable[[Any, str, bytes], Mapping[str, object] | None] = {
        "preupload": _preupload,
        "commit": _commit,
    }[what]
    return do(hub, f"{owner}/{name}", body)


def _create(hub: Any, name: str, private: bool) -> Mapping[str, object]:
    if name in hub.repositories:
        raise Refused(409, "exists", url=f"{hub.url}/{name}")
    folder = hub.uploads.new_folder(name, None)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    hub.add(name, folder)
    hub.uploads.private[name] = private
    return {"url": f"{hub.url}/{name}"}


def _object(hub: Any, asked: Mapping[str, Any]) -> Mapping[str, object]:
    known = {"oid": asked["oid"], "size": asked["size"]}
    if asked["oid"] in hub.uploads.large:
        return known
    return {**known, "actions": {"upload": {"href": f"{hub.url}/large/{asked['oid']}"}}}


def _preupload(hub: Any, name: str, body: bytes) -> Mapping[str, object]:
    return {
        "files": [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
    }


def _commit(hub: Any, name: str, body: bytes) -> Mapping[str, object] | None:
    uploads: Uploads = hub.uploads
    if uploads.lost:
        uploads.lost = False
        return None
    repository = hub.repositories[name]
    folder = uploads.new_folder(name, repository.commits[repository.revisions["main"]])
    for line in body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        match operation["key"]:
            case "header":
                continue
            case "file":
                content = base64.b64decode(value["content"])
            case "lfsFile":
                content = value["oid"].encode() if uploads.packed else uploads.large[value["oid"]]
            case other:
                raise Refused(400, f"{other} is not served")
        (folder / value["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / value["path"]).write_bytes(content)
    commits = hub.add(name, *repository.commits.values(), folder)
    return {"commitUrl": f"{hub.url}/{name}/commit/{commits[-1]}", "commitOid": commits[-1]}
