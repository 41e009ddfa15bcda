"""A vLLM server on loopback, with the options that `vllm serve` takes."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from support.scripted_run import DEADLINE, wait_until


@contextmanager
def vllm_serving(folder: Path, model: str, *options: str, **environment: str) -> Iterator[str]:
    """The address of a server of `model`, small enough for a CPU. It leaves nothing behind but its log in `folder`."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed; `make test` installs its CPU build")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The CPU build has no package of the name that the command `vllm` looks up its version by.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "256", *options]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **quiet, "VLLM_CPU_KVCACHE_SPACE": "1", **environment},
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        family = [process.pid]
        if process.poll() is None:
            family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wait_until(lambda: not any(map(psutil.pid_exists, family)))


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
