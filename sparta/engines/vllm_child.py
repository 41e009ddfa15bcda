"""What runs in vLLM's own process, around vLLM: it ends with its parent, and says why it failed."""

import os
import signal
import threading
from contextlib import suppress
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any


def run_engine_core(report: str, *args: Any, **kwargs: Any) -> None:
    """vLLM's engine, until it is told to end. Why it failed, if it does, is written to the file `report`."""
    end_with_parent()
    from vllm.v1.engine.core import EngineCoreProc

    try:
        EngineCoreProc.run_engine_core(*args, **kwargs)
    except Exception as error:
        Path(report).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


def end_with_parent() -> None:
    """Kill this process, and the workers that it has started, as soon as its parent is gone.

    vLLM 0.32 would otherwise wait for requests for ever, with the GPU's memory, when the parent is killed.
    """
    import psutil

    parent = parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def wait() -> None:
        connection.wait([sentinel])
        for worker in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
