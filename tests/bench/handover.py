"""Waiting between a phase's last row and the next phase's first process, on the development cluster: python tests/bench/handover.py

Two runs with the scripted engine, one with a driver and one detached. Start the cluster first: eval "$(bash slurm/devcluster/up.sh)".
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.scripted_run import command, typed, write_recipe

from sparta.cluster.attempts import AttemptDir
from sparta.methods.registry import phases_of
from sparta.phases.base import Phase, RowPhase
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.shards import shard_files

TICKS = 100
"""Of the clock in /proc/<pid>/stat, a second."""


def booted() -> float:
    """When this machine was started, in seconds since 1970."""
    return time.time() - float(Path("/proc/uptime").read_text().split()[0])


def first_process(run: Run, phase: Phase, t: int, boot: float) -> float:
    """When the first process of a phase began, in seconds since 1970."""
    attempts = AttemptDir(run, phase, t)
    starts = [record.process.start for attempt in attempts.all() for record in attempts.records(attempt)]
    return boot + min(start for start in starts if start is not None) / TICKS


def over(run: Run, phase: Phase, t: int) -> float:
    """When the last row of a phase was written, or when a step ended."""
    if isinstance(phase, RowPhase):
        return max(path.stat().st_mtime for path in shard_files(phase.folder(run, t)))
    attempts = AttemptDir(run, phase, t)
    return max(record.ended or 0.0 for attempt in attempts.all() for record in attempts.records(attempt))


def waits(state: Path, iterations: int) -> dict[str, list[float]]:
    """Seconds of every hand-over from one phase that has jobs to the next, by what is handed over."""
    run, boot = Run.open(StateDir(state)), booted()
    found: dict[str, list[float]] = {}
    before: tuple[str, float] | None = None
    for t in range(1, iterations + 1):
        for phase in phases_of(run.recipe, t):
            attempts = AttemptDir(run, phase, t)
            # Steps that share a job, or the driver's process, with what comes before them hand nothing over.
            jobs = [record.job for attempt in attempts.all() for record in attempts.records(attempt)]
            if not any(jobs):
                continue
            if before is not None and not (phase.name == "plan" and before[0] == "commit"):
                found.setdefault(f"{before[0]} > {phase.name}", []).append(
                    first_process(run, phase, t, boot) - before[1]
                )
            before = (phase.name, over(run, phase, t))
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    every = [wait for several in found.values() for wait in several]
    print(
        f"{title}: median {statistics.median(every):.2f} s, longest {max(every):.2f} s, {len(every)} hand-overs"
    )
    for name, several in found.items():
        print(f"  {name:20} median {statistics.median(several):5.2f} s  longest {max(several):5.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iters", type=int, default=4, help="iterations of each run (default: 4)")
    iterations = parser.parse_args().iters
    with tempfile.TemporaryDirectory() as scratch:
        recipe = write_recipe(Path(scratch), iterations=iterations)
        for title, name, extra in (
            ("with a driver", "driver", ()),
            ("detached, SLURM's own dependencies", "detached", ("--detach",)),
        ):
            state = Path(scratch) / name
            arguments = ("--recipe", recipe, "--state", state, "--profile", "devcluster", *extra)
            subprocess.run(command("launch", *arguments), check=True, stdout=subprocess.DEVNULL)
            while typed("status", state).returncode == 3:
                time.sleep(1)
            assert typed("status", state).returncode == 0, typed("status", state).stdout
            show(title, waits(state, iterations))
    return 0


if __name__ == "__main__":
    sys.exit(main())
