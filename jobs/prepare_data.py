"""Prepare the data of tasks, and of experts: python jobs/prepare_data.py gsm8k math_easy, or all subsets"""

import argparse
from pathlib import Path

from sparta.commands import prepare_data
from sparta.commands.options import exit_on_error
from sparta.recipes.schema import DATASETS
from sparta.screen import Screen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a task, or a subset that experts learn from; all: every task; subsets: the paper's ten",
    )
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
        default=DATASETS,
        help="where to put them, data.folder of recipes (default: state/datasets of the checkout)",
    )
    parser.add_argument(
        "--single",
        action="store_true",
        help="take subsets from their own repositories on the hub, not from the Tulu-v2 mixture",
    )
    parser.add_argument(
        "--update", action="store_true", help="take the hub's present revisions, not those of the last time"
    )
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help="prepare nothing; print N items of each split that is prepared, or N chats",
    )
    args = parser.parse_args()
    if args.origin is not None and (args.single or args.update):
        parser.error("--single and --update are about the hub: leave them or --from out")
    screen = Screen()
    with exit_on_error():
        if args.show is not None:
            prepare_data.show(args.names, args.show, args.folder, screen)
            return
        datasets = prepare_data.datasets_named(args.names)
        origin = prepare_data.Origin(args.origin, args.single, args.update)
        done = prepare_data.prepare_all(datasets, origin, args.folder, screen)
        prepare_data.report(done, args.folder, screen)


if __name__ == "__main__":
    main()
