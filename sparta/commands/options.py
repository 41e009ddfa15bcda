"""What the commands in jobs/ have in common: the options that say which run and where, and how a command ends."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from sparta.errors import SpartaError
from sparta.names import ClusterKind


def add_run(parser: ArgumentParser) -> None:
    """The options of a command that begins a run or goes on with one: they are fields of `sparta.commands.launch.LaunchRequest`."""
    parser.add_argument(
        "--recipe", metavar="R", help="a YAML file or a name under sparta/recipes (default: toy)"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="the state directory (default: state)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change one value of the recipe, e.g. match.k=3 or pool.sft.epochs=3",
    )
    add_where(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan; start nothing"
    )
    parser.add_argument("--detach", action="store_true", help="submit all jobs to SLURM at once, and leave")


def add_where(parser: ArgumentParser) -> None:
    """Where the work is done."""
    parser.add_argument(
        "--cluster", choices=get_args(ClusterKind), help="where the work is done (default: the recipe's)"
    )
    parser.add_argument(
        "--profile", metavar="P", help="run on SLURM as this YAML file, or name under slurm/profiles, says"
    )


@contextmanager
def exit_on_error(go_on: Callable[[], str] = lambda: "type the same command again") -> Iterator[None]:
    """Ends the command as a person is told it: by an error with its one sentence and status 1, interrupted with 130 and how to `go_on`."""
    try:
        yield
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\ninterrupted: what is done is on disk; {go_on()}", file=sys.stderr)
        sys.exit(130)
