"""A Hugging Face hub on loopback: the routes that downloads of models and data sets use, served from local folders, and uploads of models.

The name of a data set's repository begins with datasets/ here.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support.hub_uploads import LARGE, Refused, Uploads, answer


@dataclass
class Repository:
    """revisions: folder by commit, branches and tags by name; main is the newest. gated: whether its terms are not accepted yet."""

    commits: dict[str, Path]
    revisions: dict[str, str]
    gated: bool = False


@dataclass
class Hub:
    """repositories: by OWNER/NAME; any other is unknown. asked: method and path of each request. cut: files of which half is sent, once.

    stalled: files of which half is sent and then nothing; reached: that it has come to this. claims: sizes that
    are told in place of the true ones. tokens: those that are known; none: any. uploads: None where there are none.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    reached: threading.Event = field(default_factory=threading.Event)
    end: threading.Event = field(default_factory=threading.Event)
    claims: dict[str, int] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    uploads: Uploads | None = None

    def add(self, name: str, *folders: Path) -> list[str]:
        """A repository whose commits are `folders`, the newest last. Returns the commits."""
        commits = [hashlib.sha1(f"{name} {folder}".encode()).hexdigest() for folder in folders]
        self.repositories[name] = Repository(dict(zip(commits, folders, strict=True)), {"main": commits[-1]})
        return commits

    def downloaded(self, file: str) -> list[str]:
        return [line for line in self.asked if line.startswith("GET") and line.endswith(f"/{file}")]


@contextmanager
def serving(uploads: Path | None = None) -> Iterator[Hub]:
    """A hub that takes uploads into the folder `uploads`, if there is one."""
    hub = Hub(uploads=None if uploads is None else Uploads(uploads))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            self._take()

        def do_PUT(self) -> None:
            self._take()

        def _take(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self._token_unknown():
                return None
            try:
                found = answer(hub, path.strip("/").split("/"), body, self._token())
            except Refused as refused:
                return self._send_json({"error": str(refused), **refused.told}, refused.status)
            if found is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return None
            return self._send_json(found)

        def _token(self) -> str:
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

        def _token_unknown(self) -> bool:
            """Whether the request was refused for its token."""
            unknown = bool(self._token() and hub.tokens and self._token() not in hub.tokens)
            if unknown:
                self._refuse(401, message="Invalid credentials in Authorization header")
            return unknown

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            api = parts[0] == "api"
            parts = parts[1:] if api else parts
            parts = parts[1:] if parts[0] == "models" else parts
            kind_of = "datasets/" if parts[0] == "datasets" else ""
            if len(parts) < 2 or parts[0] == "v1":
                return self._refuse(404)
            owner, name, *rest = parts[1:] if kind_of else parts
            if self._token_unknown():
                return None
            repository = hub.repositories.get(f"{kind_of}{owner}/{name}")
            if repository is None:
                # Like the hub: the answer does not reveal whether a private repository exists.
                return self._refuse(401, "RepoNotFound")
            if rest[:1] == ["xet-write-token"]:
                return self._send_json({"casUrl": hub.url, "accessToken": self._token(), "exp": 2**32})
            if rest == ["auth-check", "write"]:
                reads = hub.uploads is not None and self._token() in hub.uploads.readers
                return self._refuse(403) if reads else self._send_json({})
            kind, revision, *file = [*rest, *["revision", "main"][len(rest) :]]
            commit = repository.revisions.get(revision, revision)
            if commit not in repository.commits:
                return self._refuse(404, "RevisionNotFound")
            folder = repository.commits[commit]
            if api:
                return self._send_json(_told(hub, folder, commit, f"{owner}/{name}", kind))
            if repository.gated:
                return self._refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            return self._send_file(folder / "/".join(file), commit, body)

        def _refuse(self, status: int, code: str = "", message: str = "") -> None:
            self.send_response(status)
            for header, value in (("X-Error-Code", code), ("X-Error-Message", message)):
                if value:
                    self.send_header(header, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_json(self, value: object, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send_file(self, path: Path, commit: str, body: bool) -> None:
            data = path.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{_hash_of(path)}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not body:
                return
            if path.name in hub.cut | hub.stalled:
                self.wfile.write(data[start : len(data) // 2])
                self.wfile.flush()
                hub.reached.set()
                if path.name in hub.stalled:
                    hub.end.wait()
                hub.cut.discard(path.name)
                self.close_connection = True
            else:
                self.wfile.write(data[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.end.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _told(hub: Hub, folder: Path, commit: str, name: str, kind: str) -> object:
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    sizes = {file: hub.claims.get(file, path.stat().st_size) for file, path in files.items()}
    if kind == "tree":
        return [
            {
                "type": "file",
                "path": file,
                "size": size,
                "oid": _hash_of(files[file]),
            }
            for file, size in sizes.items()
        ]
    siblings = [{"rfilename": file, "size": size} for file, size in sizes.items()]
    return {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}


def _hash_of(path: Path) -> str:
    """As the hub has it: SHA-256 of a large file, git's SHA-1 of a small one."""
    data = path.read_bytes()
    if path.name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()
