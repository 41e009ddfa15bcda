"""The command line that prepares the data of tasks and of experts."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program
from sparta.errors import UsageError
from sparta.names import DATASETS


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a task, or a subset that experts are trained on; all: every task; subsets: the paper's ten",
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
        help="where to put the prepared data, data.folder of recipes (default: %(default)s)",
    )
    parser.add_argument(
        "--single",
        action="store_true",
        help="take subsets from their own repositories on the hub, not from the Tulu-v2 mixture",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="take the newest revisions on the hub, not those used last time",
    )
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help="prepare nothing; print N items of each prepared split, or N chats of each subset",
    )


def _run(args: Namespace) -> int:
    if args.origin is not None and (args.single or args.update):
        raise UsageError("--single and --update apply to the hub only: leave them or --from out")

    from sparta.commands import prepare_data
    from sparta.screen import Screen
    from sparta.tasks.prepare import Origin

    screen = Screen()
    with exit_on_error():
        if args.show is not None:
            prepare_data.show(args.names, args.show, args.folder, screen)
            return 0
        datasets = prepare_data.datasets_named(args.names)
        origin = Origin(args.origin, args.single, args.update)
        done = prepare_data.prepare_all(datasets, origin, args.folder, screen)
        prepare_data.report(done, args.folder, screen)
    return 0


PROGRAM = Program(
    name="prepare-data",
    summary="Prepare the data of tasks, and of experts.",
    details="Prepared data belongs to no run; all runs read it.",
    example=("gsm8k", "math_easy"),
    add_options=_add_options,
    run=_run,
)
