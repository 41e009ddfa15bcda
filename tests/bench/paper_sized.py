"""Frames, tables and figures of a paper-sized run: python tests/bench/paper_sized.py [--state DIR] [--keep DIR]

Without --state, a synthetic run is written first (tests/support/paper_sized.py): a minute of processor time. For every frame and piece: processor seconds, its
size, and the peak memory of the process so far in MiB.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.paper_sized import write_run  # noqa: E402

from analysis import frames  # noqa: E402
from analysis.catalogue import FIGURES, TABLES  # noqa: E402
from analysis.drawing import svg  # noqa: E402
from analysis.frame_columns import FRAMES  # noqa: E402
from analysis.pieces import Absent  # noqa: E402


def timed(what: str, make: Callable[[], str]) -> None:
    """Print what `make` took, and what it says of its result."""
    began = time.process_time()
    try:
        said = make()
    except Absent as why:
        said = f"absent: {why}"
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:24}{seconds:7.2f} s {peak:7.0f}  {said}", flush=True)


def measure(state: Path) -> None:
    """Measure everything that is made of the run in `state`."""
    print("what                 processor      MiB")
    found = frames.load(state)

    def frame(name: str) -> str:
        made = found.frame(name)
        return f"{len(made):,} rows, {made.memory_usage(deep=True).sum() / 2**20:.1f} MiB"

    for name in FRAMES:
        timed(f"frame {name}", lambda name=name: frame(name))
    for name, table in TABLES.items():
        timed(f"table {name}", lambda table=table: f"{len(table.make(found).rendered('html')) / 1000:.0f} kB")
    for name, figure in FIGURES.items():
        timed(
            f"figure {name}",
            lambda name=name, figure=figure: f"{len(svg(figure.make(found), name)) / 1000:.0f} kB",
        )
    print(f"all{'':21}{time.process_time():7.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, help="measure this run")
    parser.add_argument(
        "--keep", type=Path, help="write the synthetic run into this folder, and leave it there"
    )
    args = parser.parse_args()
    if args.state:
        measure(args.state)
    elif args.keep:
        args.keep.mkdir(parents=True)
        measure(write_run(args.keep).state.root)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(write_run(Path(folder)).state.root)


if __name__ == "__main__":
    main()
