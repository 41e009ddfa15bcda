"""Prepare the data of tasks: python jobs/prepare_data.py gsm8k math_easy, or all"""

import argparse
import sys
from pathlib import Path

from sparta.cluster import preparing
from sparta.cluster.console import Screen
from sparta.errors import SpartaError
from sparta.recipe import Data
from sparta.tasks.prepared import folder_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="a task of sparta.tasks; all: every one")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="DIR",
        dest="origin",
        help="read the data sets' files from below this folder (default: the Hugging Face hub)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        default=folder_of(Data(task="all")),
        help="where to put them, data.folder of recipes (default: state/datasets of the checkout)",
    )
    parser.add_argument(
        "--update", action="store_true", help="take the hub's present revisions, not those of the last time"
    )
    parser.add_argument(
        "--show", type=int, metavar="N", help="prepare nothing; print N items of each split that is prepared"
    )
    args = parser.parse_args()
    screen = Screen()
    try:
        if args.show is not None:
            preparing.show(args.tasks, args.show, args.folder, screen)
            return 0
        datasets = preparing.datasets_named(args.tasks)
        done = preparing.prepare_all(datasets, args.origin, args.folder, args.update, screen)
        preparing.report(done, args.folder, screen)
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted: what is prepared is on disk; the same command prepares the rest", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
