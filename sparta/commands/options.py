"""What the command lines have in common: which run and where, contradictions in what was typed, and how a command ends."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from sparta.errors import SpartaError
from sparta.names import ClusterKind, quoted

Stage = Literal["validation", "test", "both"]
"""The split that an evaluation scores: on validation checkpoints are chosen, on test the chosen ones are scored."""


class UsageError(Exception):
    """The arguments contradict each other. The message says how, and which to leave out; the command ends as for an unknown option."""


def add_state(parser: ArgumentParser) -> None:
    """The state directory, as an argument and as --state: see `settle_state`."""
    parser.add_argument(
        "state_argument",
        nargs="?",
        type=Path,
        metavar="STATE",
        help="the state directory, which holds everything of a run (default: state)",
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="the state directory, given as an option")


def settle_state(args: Namespace) -> None:
    """Leave one `state` in `args`, None where none was given. Raises UsageError where two were given and differ."""
    if not hasattr(args, "state_argument"):
        return
    argument = args.state_argument
    del args.state_argument
    if argument is not None and args.state is not None and argument.resolve() != args.state.resolve():
        raise UsageError(
            f"two state directories are given, {quoted(argument)} and {quoted('--state', args.state)}: leave one of them out"
        )
    args.state = args.state if argument is None else argument


def add_recipe(parser: ArgumentParser) -> None:
    """The recipe, and changes to it."""
    parser.add_argument(
        "--recipe",
        metavar="R",
        help="a YAML file, or the name of a recipe of the suite, such as paper/gsm8k (default: toy)",
    )
    parser.add_argument(
        "--method",
        action="append",
        type=lambda name: f"method={name}",
        default=[],
        metavar="NAME",
        dest="settings",
        help="how the pool is aligned: sparta, or a method that aligns one model, such as self_rewarding (default: what the recipe says)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change one value of the recipe, for example match.k=3 or pool.sft.epochs=3; may be repeated",
    )


def add_run(parser: ArgumentParser) -> None:
    """The options of a command that begins or continues a run: they are fields of `sparta.commands.launch.LaunchRequest`."""
    add_state(parser)
    add_recipe(parser)
    add_where(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan; start nothing"
    )
    parser.add_argument("--detach", action="store_true", help="submit all jobs to SLURM at once, and leave")


def add_where(parser: ArgumentParser) -> None:
    """Where the work is done."""
    parser.add_argument(
        "--cluster",
        choices=get_args(ClusterKind),
        help="where the work is done (default: what the recipe says)",
    )
    parser.add_argument(
        "--profile",
        metavar="P",
        help="run on SLURM, on the cluster that this YAML file, or name under slurm/profiles, describes",
    )


@contextmanager
def exit_on_error(
    go_on: Callable[[], str] = lambda: "type the same command again", place: Path | None = None
) -> Iterator[None]:
    """End the command as a person is told it: by an error with its one sentence and status 1, interrupted with 130 and how to `go_on`.

    An error of the operating system that nobody has named ends in a sentence too; place: what it names where the error names no path, the
    folder that the command works on.
    """
    from sparta.store.disk import os_errors_in_words

    try:
        with os_errors_in_words(place or Path.cwd()):
            yield
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\ninterrupted: what is done is on disk; {go_on()}", file=sys.stderr)
        sys.exit(130)
