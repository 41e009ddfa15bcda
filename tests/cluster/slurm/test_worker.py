"""What runs inside a job, tested without SLURM: only the task gets the signal, and no child process outlives the task."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import DEADLINE, wait_until

from sparta.cluster.slurm.worker import children_shielded
from sparta.errors import SpartaError

TASK = """
import json, multiprocessing, os, signal, subprocess, sys, time
from sparta.cluster.slurm.worker import children_shielded

told = []
def handler(number, frame):
    told.append(number)
    print(number, flush=True)
    if sys.argv[1] == "refused":
        subprocess.run(["sh", "-c", "exit 1"], check=True)

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
PARENT = f'''
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
'''

if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, handler)
    if sys.argv[2] == "threads":
        # As a library's, made at import: it does not know of any mask.
        import threading
        for _ in range(3):
            threading.Thread(target=time.sleep, args=[600], daemon=True).start()
    with children_shielded():
        one = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        pids = [one.pid, int(one.stdout.readline())]
        for how in ("fork", "spawn"):
            child = multiprocessing.get_context(how).Process(target=time.sleep, args=[600])
            child.start()
            pids.append(child.pid)
        print(json.dumps(pids), flush=True)
        sys.stdin.readline()
        while sys.argv[2] == "threads" and not told:
            time.sleep(0.01)
        print(json.dumps(told), flush=True)
        if sys.argv[1] == "raises":
            raise ValueError
    print("left", flush=True)
"""


def alive(pid: int) -> bool:
    """Whether the process is there and is more than an entry that nobody has read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start(tmp_path: Path, how: str, threads: str = "alone") -> "tuple[subprocess.Popen[str], list[int]]":
    """A task in a process group of its own, and its children: a child, its stubborn child, one forked, one spawned."""
    (tmp_path / "task.py").write_text(TASK)
    task = subprocess.Popen(
        [sys.executable, tmp_path / "task.py", how, threads],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert task.stdout is not None
    return task, json.loads(task.stdout.readline())


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_children_survive_the_signal_and_not_the_task(how: str, tmp_path: Path) -> None:
    task, children = start(tmp_path, how)
    assert len(set(children)) == 4
    for _ in range(3):
        os.killpg(task.pid, signal.SIGUSR2)
    assert task.stdout is not None
    assert int(task.stdout.readline()) == signal.SIGUSR2, "the handler woke the main thread"
    assert all(map(alive, children))
    out, err = task.communicate("\n", timeout=DEADLINE)
    said = out.splitlines()
    assert json.loads(said[0]) == [signal.SIGUSR2], "once"
    assert (said[1:] == ["left"]) == (how == "ends"), err
    assert ("ValueError" in err) == (how == "raises")
    wait_until(lambda: not any(map(alive, children)))


def test_a_thread_that_takes_the_signal_first_changes_nothing(tmp_path: Path) -> None:
    """Such as a library makes when it is imported, before the signal is blocked."""
    task, children = start(tmp_path, "ends", "threads")
    for _ in range(3):
        os.killpg(task.pid, signal.SIGUSR2)
    # The main thread is not woken: the handler runs when it is next at work.
    out, err = task.communicate("\n", timeout=DEADLINE)
    assert out.splitlines() == [str(int(signal.SIGUSR2)), f"[{int(signal.SIGUSR2)}]", "left"], err
    wait_until(lambda: not any(map(alive, children)))


def test_a_requeue_that_slurm_refuses_ends_the_task_all_the_same(tmp_path: Path) -> None:
    """Where SLURM preempts a task it requeues it by itself, and ends the scontrol that would have asked for it."""
    task, children = start(tmp_path, "refused")
    os.killpg(task.pid, signal.SIGUSR2)
    assert task.stdout is not None
    # All of it: what `readline` had read beyond the first line, `communicate` would not return.
    handled, said = task.stdout.read().splitlines()
    _, err = task.communicate(timeout=DEADLINE)
    assert task.returncode == 1, err
    assert int(handled) == signal.SIGUSR2
    assert said.startswith("leaving without having asked for a requeue: ") and "Traceback" not in err
    wait_until(lambda: not any(map(alive, children)))


TRAINING = """
import signal, sys, time
from sparta.cluster.slurm.worker import children_shielded
from sparta.training import preemption

def handler(number, frame):
    print("requeued", flush=True)
    sys.exit(3)

signal.signal(signal.SIGUSR2, handler)
with children_shielded(float(sys.argv[1])):
    with preemption.postponable():
        print("trains", flush=True)
        while not preemption.requested():
            time.sleep(0.01)
        print("told", flush=True)
        if sys.argv[2] == "saves":
            print("saved", flush=True)
            preemption.stop_here()
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("seconds", "how", "expected"),
    [
        (300, "saves", ["told", "saved", "requeued"]),
        (0.5, "does not come to it", ["told", "requeued"]),
        (0, "saves", ["requeued"]),
    ],
)
def test_a_preempted_training_may_save_first_within_a_time_limit(
    seconds: float, how: str, expected: list[str]
) -> None:
    task = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(seconds), how], stdout=subprocess.PIPE, text=True
    )
    assert task.stdout is not None and task.stdout.readline() == "trains\n"
    for _ in range(3):
        task.send_signal(signal.SIGUSR2)
    out, _ = task.communicate(timeout=DEADLINE)
    assert (out.split(), task.returncode) == (expected, 3)


def test_without_submitits_handler_a_task_is_refused() -> None:
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    with pytest.raises(SpartaError, match="start it through submitit"), children_shielded():
        pass
