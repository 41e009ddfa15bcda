"""Processor time of the commands that people wait for: python tests/bench/start.py [--runs 7] [--state DIR]

Median over the runs, in seconds; --state adds the status of a run. Promised: under 0.5 s.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of one run of a command, its output thrown away."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--state", type=Path)
    args = parser.parse_args()
    commands = [[f"jobs/{name}.py", "--help"] for name in ("launch", "status", "evaluate")]
    if args.state:
        commands.append(["jobs/status.py", str(args.state.resolve())])
    for command in commands:
        times = [processor_seconds(command) for _ in range(args.runs)]
        print(f"{median(times):.2f} s  {' '.join(command)}")


if __name__ == "__main__":
    main()
