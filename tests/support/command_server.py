"""Runs the programs of jobs/ in forks of a process that has imported what they import, which takes seconds and is the same each time.

Each fork is a process of its own, with its own folder, arguments and output, and ends like a program that was started. What it shares with the
others is the environment (but for variables that are read when they are used), the seed of Python's hashes, and that nothing was imported by it
alone: tests of these start real processes.
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Any

PRELOADED = (
    "sparta.commands.cli",
    "sparta.commands.launch",
    "sparta.commands.evaluate",
    "sparta.commands.prepare_data",
    "sparta.commands.export_model",
    "sparta.commands.export_pairs",
    "sparta.commands.recipe",
    "sparta.status.collect",
    "sparta.engines.factory",
    "sparta.engines.hf.engine",
    "numpy",
    "safetensors",
    "torch",
    "transformers",
    "peft",
)


class CommandServer:
    """A server in `folder`, the repository, with the environment `environment`. Starts at the first command; `close` ends it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self.environment = folder, environment
        self._server: subprocess.Popen[str] | None = None

    def run(
        self,
        script: Path,
        arguments: Sequence[str],
        cwd: Path,
        timeout: float,
        environment: Mapping[str, str | None],
    ) -> "subprocess.CompletedProcess[str]":
        """Run `script` to its end, with variables that differ from the server's; None: not set there.

        Raises subprocess.TimeoutExpired, the command killed, after `timeout` seconds.
        """
        server = self._started()
        assert server.stdin is not None and server.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            command = [str(script), *arguments]
            request = {
                "command": command,
                "cwd": str(cwd),
                "out": str(out),
                "err": str(err),
                "environment": dict(environment),
            }
            print(json.dumps(request), file=server.stdin, flush=True)
            if not select([server.stdout], [], [], timeout)[0]:
                self.close()
                raise subprocess.TimeoutExpired(command, timeout)
            status = int(server.stdout.readline())
            return subprocess.CompletedProcess(command, status, out.read_text(), err.read_text())

    def close(self) -> None:
        """End the server and a command that it still runs."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _started(self) -> "subprocess.Popen[str]":
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self._folder,
                env=self.environment,
                start_new_session=True,
            )
        return self._server


def serve() -> None:
    """Answer each line of standard input, a request, with the exit status of its command."""
    # The scripts' folder comes first, as where Python runs a script; tests/support has names that nothing should import.
    sys.path[0] = str(Path(__file__).parents[2] / "jobs")
    sys.path.insert(1, str(Path(__file__).parents[2]))
    for name in PRELOADED:
        __import__(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _end(_run(json.loads(line)))
        _, state = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(state), flush=True)


def _run(request: dict[str, Any]) -> int:
    """Become the command. Returns its exit status."""
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["cwd"])
    for key, value in request["environment"].items():
        os.environ.pop(key, None)
        if value is not None:
            os.environ[key] = value
    sys.argv = request["command"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(status: int) -> None:
    """End this process as Python ends: threads are waited for, exit handlers run, output is written."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
