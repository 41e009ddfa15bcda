"""What the command lines share: options for run and cluster, contradicting arguments, and how a command exits."""

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
"""The splits that an evaluation scores: checkpoints are chosen on validation, the chosen ones are scored on test."""


def add_recipe(parser: ArgumentParser) -> None:
    """Add --recipe and --set."""
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
        help="how the pool is aligned: sparta, or a method that aligns one model, such as self_rewarding (default: the recipe's)",
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
    """Add the options of a command that starts or continues a run: fields of `sparta.commands.launch_request.LaunchRequest`."""
    add_state(parser)
    add_recipe(parser)
    add_where(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan; start nothing"
    )
    parser.add_argument("--detach", action="store_true", help="submit all jobs to SLURM at once, and exit")


def add_where(parser: ArgumentParser) -> None:
    """Add --cluster and --profile."""
    parser.add_argument(
        "--cluster",
        choices=get_args(ClusterKind),
        help="where tasks run (default: cluster.kind of the recipe)",
    )
    parser.add_argument(
        "--profile",
        metavar="P",
        help="run on SLURM, with the cluster profile P: a YAML file, or a name under slurm/profiles",
    )


@contextmanager
def exit_on_error(
    next_step: Callable[[], str] = lambda: "type the same command again", place: Path | None = None
) -> Iterator[None]:
    """Exit with one clear message: after an error with status 1; after an interrupt with status 130, saying how to continue (`next_step`).

    Errors of the operating system become a sentence too. place: the folder that the command works on, named where such an error has no path.
    """
    from sparta.store.disk import os_errors_in_words

    try:
        with os_errors_in_words(place or Path.cwd()):
            yield
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\ninterrupted: finished work is on disk; {next_step()}", file=sys.stderr)
        sys.exit(130)
