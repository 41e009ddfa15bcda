"""A long and large run of the scripted engine: python tests/bench/long_run.py [--models 10] [--combats 1000] [--iterations 8]

For each iteration: time and peak memory of the launch that makes it, then of a launch with nothing to do (its start), of `status`, and the size of the
state; at the end, time and memory of `verify`. They should be flat from iteration to iteration, but for the size. Seconds are of the processor,
memory is that of the largest process, in MiB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.scripted_run import command, write_recipe  # noqa: E402


def timed(*words: object) -> tuple[float, float]:
    """Processor seconds of a command, and its peak memory in MiB."""
    process = subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, words))} ended with status {status}: {said.decode()[-1000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--combats", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recipe = write_recipe(
            place,
            models=args.models,
            combats=args.combats,
            prompts=2 * args.combats,
            iterations=args.iterations,
        )
        state = place / "state"
        launch = command("launch", "--recipe", recipe, "--state", state, "--iters")
        print("iteration  made in  MiB   started in  MiB   status  state MB", flush=True)
        for t in range(1, args.iterations + 1):
            made, start = timed(*launch, t), timed(*launch, t)
            status = timed(*command("status", state))
            size = sum(path.stat().st_size for path in state.rglob("*") if path.is_file()) / 1e6
            print(
                f"{t:9}  {made[0]:5.1f} s {made[1]:5.0f}  {start[0]:8.2f} s {start[1]:5.0f}  {status[0]:5.2f} s  {size:8.1f}",
                flush=True,
            )
        verified = timed(*command("verify", state))
        print(f"verify: {verified[0]:.1f} s, {verified[1]:.0f} MiB")


if __name__ == "__main__":
    main()
