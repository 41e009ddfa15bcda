"""The command line that writes preference pairs in TRL's format."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON Lines of prompt, chosen and rejected, each a list of messages, and iteration, the one that made the pair",
    )
    parser.add_argument(
        "--finished",
        action="store_true",
        help="leave out pairs with a response that was cut at its token limit",
    )


def _run(args: Namespace) -> int:
    from sparta.commands.export_pairs import export_pairs
    from sparta.screen import Screen

    with exit_on_error():
        export_pairs(args.state or DEFAULT_STATE, args.out, args.finished, Screen())
    return 0


PROGRAM = Program(
    name="export-pairs",
    summary="Write preference pairs in TRL's format.",
    details="STATE is a state directory (all its iterations, in order) or one iteration in it, such as state/iter_05.",
    example=("state/mine/iter_05", "--out", "pairs.jsonl"),
    add_options=_add_options,
    run=_run,
)
