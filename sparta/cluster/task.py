"""What runs inside a job, wherever the job runs: open the run, take one shard's keys, do what is missing of them, say how it went."""

import os
import signal
import time
import traceback
from pathlib import Path

import msgspec

from sparta.cluster.attempts import AttemptDir, Watch, begin_record
from sparta.engines.factory import loads_so_far
from sparta.errors import SpartaError
from sparta.methods.registry import phase_named
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run


def run_task(run: Run, phase_name: str, t: int, number: int, shard: int, watch: Watch) -> None:
    """Do shard `shard` of attempt `number`. What it raises is what the phase raised; the task's record says so too."""
    phase = phase_named(phase_name)
    attempts = AttemptDir(run, phase, t)
    keys = attempts.keys(number, shard)
    path = attempts.record_file(number, shard)
    record = begin_record(shard, len(keys))
    loads = loads_so_far()
    try:
        files.write_json(path, record)
        _refuse_if_dealt_again(attempts, number)
        phase.perform(run, t, keys, number, shard, watch)
    except BaseException as error:
        said = str(error) if isinstance(error, SpartaError) else None
        short = f"{type(error).__name__}: {error}"
        record = msgspec.structs.replace(record, outcome="failed", ended=time.time(), said=said, error=short)
        files.write_json(path, record)
        raise
    done = msgspec.structs.replace(record, outcome="done", ended=time.time(), loads=loads_so_far() - loads)
    files.write_json(path, done)


def _refuse_if_dealt_again(attempts: AttemptDir, number: int) -> None:
    """A driver that was killed between starting this task and noting it down leaves its successor to deal the same keys out again.

    That one deals first and then looks for tasks that have said they run; this one has said so and now looks. So one of the two notices.
    """
    latest = attempts.all()[-1].number
    if latest != number:
        raise SpartaError(f"these keys have been dealt out again, in attempt {latest}: nothing was done here")


def main(state: str, phase_name: str, t: int, number: int, shard: int, gpu: str = "") -> None:
    """A task in a process of its own; its output is the job's log. gpu: the one it may use, where the launcher shares them out."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # Blocked since before this process began, see local.py; what came in the meantime arrives now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    print(f"{phase_name} of iteration {t}: attempt {number}, shard {shard}", flush=True)
    run = Run.open(StateDir(Path(state)))
    done = 0.0
    shown = time.monotonic()

    def watch(items: float) -> None:
        nonlocal done, shown
        done += items
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{phase_name}: {done:.1f} items done", flush=True)

    try:
        run_task(run, phase_name, t, number, shard, watch)
    except SpartaError as error:
        print(f"error: {error}", flush=True)
    except Exception:
        traceback.print_exc()
    else:
        print(f"{phase_name}: {done:.1f} items done; the shard is complete", flush=True)
