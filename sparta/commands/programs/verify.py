"""The command line that checks a state."""

from argparse import ArgumentParser, Namespace

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="first remove temporary files of killed writers, lines that are cut off or repeat others, and in the iteration in work lines that are "
        "no rows; lines are kept below superseded/",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def _run(args: Namespace) -> int:
    from sparta.commands.verify import verify
    from sparta.screen import Screen
    from sparta.store.layout import StateDir

    state = args.state or DEFAULT_STATE
    with exit_on_error(place=state):
        return 0 if verify(StateDir(state), args.repair, args.json, Screen()) else 1


PROGRAM = Program(
    name="verify",
    summary="Check a whole state.",
    details="Every byte that is committed is read; plans, results, reputations, pairs and scores are computed again from the rows. Without --repair "
    "it only reads. Exit status: 0 if nothing is wrong, 1 otherwise.",
    example=("state/mine",),
    add_options=_add_options,
    run=_run,
)
