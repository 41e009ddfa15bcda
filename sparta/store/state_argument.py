"""The state directory on a command line, as an argument and as --state, for every command of jobs/ and analysis/."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.errors import UsageError
from sparta.names import quoted


def add_state(parser: ArgumentParser) -> None:
    """Add STATE and --state to `parser`. After parsing, call `settle_state`."""
    parser.add_argument(
        "state_argument",
        nargs="?",
        type=Path,
        metavar="STATE",
        help="the state directory, which holds everything of a run (default: state)",
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="the state directory, given as an option")


def settle_state(args: Namespace) -> None:
    """Leave one `state` in `args`, or None if none was given. Raises UsageError if two different ones were given."""
    if not hasattr(args, "state_argument"):
        return
    argument = args.state_argument
    del args.state_argument
    if argument is not None and args.state is not None and argument.resolve() != args.state.resolve():
        raise UsageError(
            f"two state directories are given, {quoted(argument)} and {quoted('--state', args.state)}: leave one of them out"
        )
    args.state = args.state if argument is None else argument
