"""Ties vLLM's child process to ours: each ends when the other dies, and the child reports why it failed."""

import os
import signal
import threading
from concurrent.futures import InvalidStateError
from contextlib import suppress
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

from sparta.engines.vllm.start_stages import stages_noted


def fail_with_child(core: Any) -> None:
    """Make all calls that wait for vLLM's processes raise vLLM's EngineDeadError as soon as one of them dies.

    core: an engine's `engine_core`. vLLM 0.32 notices such a death too, but calls already waiting hang forever.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    resources, outputs, calls = core.resources, core.outputs_queue, core.utility_results
    # Duplicates, because vLLM closes its own descriptors at shutdown.
    ends = [os.dup(process.sentinel) for process in resources.engine_manager.processes]

    def wait() -> None:
        connection.wait(ends)
        for end in ends:
            os.close(end)
        # Later calls check this flag; earlier ones are in `calls`.
        resources.engine_dead = True
        for answer in list(calls.values()):
            with suppress(InvalidStateError):
                answer.set_exception(EngineDeadError())
        outputs.put_nowait(EngineDeadError())

    threading.Thread(target=wait, name="fail with child", daemon=True).start()


def run_engine_core(report: str, stages: str, *args: Any, **kwargs: Any) -> None:
    """Run vLLM's engine until it is shut down. If it fails, write the error to the file `report`. stages: see `stages_noted`."""
    end_with_parent()
    from vllm.v1.engine.core import EngineCoreProc

    try:
        with stages_noted(Path(stages)):
            EngineCoreProc.run_engine_core(*args, **kwargs)
    except Exception as error:
        Path(report).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        # vLLM 0.32 leaves its workers running if it fails while starting; this process would wait for them forever.
        _end_workers()
        raise


def end_with_parent() -> None:
    """Kill this process and its workers as soon as its parent dies.

    Otherwise vLLM 0.32 waits for requests forever and keeps the GPU's memory after the parent is killed.
    """
    parent = parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def wait() -> None:
        connection.wait([sentinel])
        _end_workers()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def _end_workers() -> None:
    import psutil

    for worker in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            worker.kill()
