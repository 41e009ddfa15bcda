"""A real HTTP server in front of an endpoint, with scripted replies."""

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sparta.engines.api.engine import ApiEngine
from sparta.engines.base import Completion, Inbox, Request
from support.engine_contract import SAMPLED, ref, request
from support.scripted_run import DEADLINE

BARE = ref("bare", Path("some/base"), None)
ADA = ref("ada", Path("some/base"), Path("adapters/ada"), "1")


class Reply(NamedTuple):
    """A reply of the server instead of an answer. body: text as it is, anything else as JSON. never: send no reply."""

    status: int = 200
    body: object = ""
    headers: dict[str, str] = {}  # noqa: RUF012
    never: bool = False


class Seen(NamedTuple):
    path: str
    body: dict[str, Any]
    authorization: str


class Proxy:
    """An HTTP server in front of the endpoint at `upstream`; without one it makes its own answers, 10 + 5 tokens each.

    replies: said first, in order, instead of answers to chat requests. until: a request, counted from 1, is answered once this is true of
    its number.
    """

    def __init__(self, upstream: str = "") -> None:
        self.upstream = urlsplit(upstream)
        self.until: Callable[[int], object] = lambda number: True
        self.replies: deque[Reply] = deque()
        self.always: Callable[[Seen], Reply] | None = None
        self.seen: list[Seen] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        self._dead = threading.Event()
        self._sockets: list[socket.socket] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy._sockets.append(self.connection)

            def do_POST(self) -> None:
                with suppress(OSError):
                    proxy._serve(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def chats(self) -> list[Seen]:
        return [one for one in self.seen if one.path.endswith("/chat/completions")]

    def die(self) -> None:
        """Stop listening and cut all connections."""
        self._dead.set()
        self._server.shutdown()
        self._server.server_close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        data = handler.rfile.read(int(handler.headers["content-length"]))
        seen = Seen(handler.path, json.loads(data), handler.headers.get("authorization", ""))
        with self._lock:
            self.seen.append(seen)
            number = len(self.seen)
            self.under_way += 1
            self.most_under_way = max(self.under_way, self.most_under_way)
            chat = seen.path.endswith("/chat/completions")
            reply = self.replies.popleft() if chat and self.replies else None
        try:
            while not self.until(number) and not self._dead.wait(0.005):
                pass
            if reply is None:
                reply = self.always(seen) if self.always else self._answer(seen, data)
            if reply.never:
                self._dead.wait()
            text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        finally:
            with self._lock:
                self.under_way -= 1
        handler.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def _answer(self, seen: Seen, data: bytes) -> Reply:
        if not self.upstream.netloc:
            if "messages" not in seen.body:
                return Reply(body="Success", headers={"content-type": "text/plain"})
            return answer(f"to {seen.body['messages'][-1]['content']}")
        connection = HTTPConnection(self.upstream.netloc, timeout=DEADLINE)
        connection.request("POST", seen.path, data, {"content-type": "application/json"})
        with connection.getresponse() as response:
            return Reply(response.status, response.read().decode())


def answer(text: str | None, finish_reason: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return Reply(body={"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


def error(status: int, message: str, code: object = None, **headers: str) -> Reply:
    return Reply(status, {"error": {"message": message, "code": code}}, headers)


def asked(engine: ApiEngine, count: int = 1) -> list[Request]:
    return [request(engine, BARE, f"question {i}", SAMPLED, seed=i) for i in range(count)]


def complete(engine: ApiEngine, requests: Sequence[Request]) -> list[Completion]:
    return list(engine.run(Inbox(requests)))
