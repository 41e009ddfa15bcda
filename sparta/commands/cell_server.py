"""Starts the processes of a study's cells as forks of one process that has imported what they import, which takes seconds and is the same for all.

Each fork is a process of its own, with its own session, environment and log, and goes on where the driver or the server is killed. On a machine with GPUs
only this package is imported beforehand: nothing there may touch a GPU before the fork.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError

OURS = (
    "sparta.commands.cli",
    "sparta.commands.study",
    "sparta.commands.launch",
    "sparta.commands.evaluate",
)
HEAVY = ("sparta.engines.hf.engine", "sparta.training.dpo", "torch", "transformers", "peft")
"""What generating and training on transformers imports."""
PERIOD = 0.1
"""Seconds after which the server notices at the latest that a fork has ended."""


class CellServer:
    """One server for one driver. preloaded: modules that forks will need. `close` ends it, not its forks."""

    def __init__(self, preloaded: Sequence[str]) -> None:
        self._preloaded = tuple(preloaded)
        self._server: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._watched: set[int] = set()
        self._ended: dict[int, int] = {}

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> "CellFork":
        """Run the command line `sparta` with `arguments` in a new process that writes to the end of `log`."""
        request = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        for _ in range(2):
            server = self._started(environment)
            assert server.stdin is not None
            try:
                server.stdin.write(json.dumps(request).encode() + b"\n")
                server.stdin.flush()
                while True:
                    answer = self._read(wait=True)
                    if answer is not None and "started" in answer:
                        self._watched.add(answer["started"])
                        return CellFork(self, answer["started"])
            except (BrokenPipeError, EOFError):
                # Somebody killed the server. Its forks go on; how they end is then known from their files alone.
                self.close()
        raise SpartaError(
            "the process from which cells are started ended at once, twice: what it printed above says why; mend that and run the study again"
        )

    def status_of(self, pid: int) -> int | None:
        """The exit status of a fork, negative for a signal; None while it runs, and where the server was killed."""
        try:
            while self._server is not None and self._read(wait=False) is not None:
                pass
        except EOFError:
            self.close()
        return self._ended.get(pid)

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server, self._unread = None, b""
            self._watched.clear()

    def watches(self, pid: int) -> bool:
        """Whether `status_of` tells how the fork ends: not where the server that made it was killed before."""
        return self.status_of(pid) is not None or pid in self._watched

    def _started(self, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "sparta.commands.cell_server", *self._preloaded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(environment),
                start_new_session=True,
            )
        return self._server

    def _read(self, wait: bool) -> dict[str, int] | None:
        """The server's next line; None if there is none now. Raises EOFError where the server has ended."""
        assert self._server is not None and self._server.stdout is not None
        pipe = self._server.stdout.fileno()
        while b"\n" not in self._unread:
            if not wait and not select.select([pipe], [], [], 0)[0]:
                return None
            more = os.read(pipe, 65536)
            if not more:
                raise EOFError
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, int] = json.loads(line)
        if "ended" in answer:
            self._ended[answer["ended"]] = answer["status"]
        return answer


class CellFork:
    """A started process. returncode: its exit status, negative for a signal; None while it runs, and where nobody knows. watched: whether
    `returncode` tells when it ends.
    """

    def __init__(self, server: CellServer, pid: int) -> None:
        self._server, self.pid = server, pid

    @property
    def returncode(self) -> int | None:
        return self._server.status_of(self.pid)

    @property
    def watched(self) -> bool:
        return self._server.watches(self.pid)


def serve(preloaded: Sequence[str]) -> None:
    """Fork for each line of standard input, until it ends. Says on standard output which processes have started and ended."""
    # The driver ends its cells itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in preloaded:
        import_module(name)
    unread, children = b"", set[int]()
    while True:
        if select.select([0], [], [], PERIOD if children else None)[0]:
            more = os.read(0, 65536)
            if not more:
                return
            unread += more
        while b"\n" in unread:
            line, _, unread = unread.partition(b"\n")
            child = os.fork()
            if child == 0:
                _end(_become(json.loads(line)))
            children.add(child)
            _say({"started": child})
        for child in sorted(children):
            found, state = os.waitpid(child, os.WNOHANG)
            if found:
                children.discard(child)
                _say({"ended": child, "status": os.waitstatus_to_exitcode(state)})


def _say(answer: Mapping[str, int]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _become(request: Mapping[str, Any]) -> int:
    """Become the command. Returns its exit status."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, name, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (2, request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ):
            opened = os.open(name, flags, 0o666)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(request["environment"])
        if "torch" in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
            # It was read when torch was imported.
            sys.modules["torch"].set_num_threads(int(threads))
        sys.argv = ["-c", *request["arguments"]]
        from sparta.commands.cli import main

        return main(request["arguments"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def _end(status: int) -> None:
    """End this process as Python ends: threads are waited for, output is written."""
    threading._shutdown()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1:])
