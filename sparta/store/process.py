"""Processes of this machine, identified even if a pid is reused."""

import os
import socket
from pathlib import Path

import msgspec


class ProcessId(msgspec.Struct, frozen=True):
    """A process. machine: see `machine`. start: see `process_start`."""

    pid: int
    machine: str
    start: int | None


def identify(pid: int) -> ProcessId:
    """The process that has `pid` now."""
    return ProcessId(pid, machine(), process_start(pid))


def lives(process: ProcessId) -> bool:
    """Whether exactly this process still runs; False for one of another machine, which cannot be checked here."""
    return (
        process.start is not None
        and process.machine == machine()
        and process_start(process.pid) == process.start
    )


def runs(pid: int) -> bool:
    """Whether a process of this machine, of any user, has `pid`; a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_start(pid) != -1


def slurm_restarts() -> int:
    """How often SLURM has requeued the job that this process runs in, if any."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def machine() -> str:
    """An id of this boot and process namespace: equal for two processes that can see each other's pids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return socket.gethostname()
    return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def process_start(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process (/proc/<pid>/stat, field 22), which tells apart two processes with one pid.

    None where that cannot be read, -1 for a zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may itself contain parentheses and spaces.
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
