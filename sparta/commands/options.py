"""What the command lines have in common: which run and where, contradictions in what was typed, and how a command ends."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from sparta.errors import SpartaError
from sparta.names import ClusterKind
from sparta.store.state_argument import add_state

Stage = Literal["validation", "test", "both"]
"""The split that an evaluation scores: on validation checkpoints are chosen, on test the chosen ones are scored."""


def add_recipe(parser: ArgumentParser) -> None:
    """The recipe, and changes to it."""
    parser.add_argument(
        "--recipe",
        metavar="R",
        help="a YAML file, or the name of a recipe of the suite, such as paper/gsm8k (default: toy)",
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
