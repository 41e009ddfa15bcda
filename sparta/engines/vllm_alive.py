"""Notices in this process that vLLM's own process has died without a word, as one does that the kernel kills for memory."""

import os
import threading
from concurrent.futures import InvalidStateError
from contextlib import suppress
from multiprocessing import connection
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
