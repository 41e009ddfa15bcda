"""What runs in vLLM's own process, around vLLM: it ends with its parent, and says why it failed."""

import os
import signal
import threading
from concurrent.futures import InvalidStateError
from contextlib import suppress
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any


def fail_with_child(core: Any) -> None:
    """Have what waits for vLLM's processes raise vLLM's EngineDeadError as soon as one of them is gone.

    core: an engine's `engine_core`. vLLM 0.32 notices such a death too, but whoever waits for an answer already waits for ever.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    resources, outputs, calls = core.resources, core.outputs_queue, core.utility_results
    # Of our own, as vLLM closes its when it is told to end.
    ends = [os.dup(process.sentinel) for process in resources.engine_manager.processes]

    def wait() -> None:
        connection.wait(ends)
        for end in ends:
            os.close(end)
        # Calls that come later look at this; those that came before are among `calls`.
        resources.engine_dead = True
        for answer in list(calls.values()):
            with suppress(InvalidStateError):
                answer.set_exception(EngineDeadError())
        outputs.put_nowait(EngineDeadError())

    threading.Thread(target=wait, name="fail with child", daemon=True).start()


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
