"""The command line that copies the batch scripts and cluster profiles out of an installed package."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to put slurm/ (default: the working directory)",
    )


def _run(args: Namespace) -> int:
    from sparta.commands.scripts import copy_scripts

    with exit_on_error():
        print(copy_scripts(args.folder))
    return 0


PROGRAM = Program(
    name="scripts",
    summary="Copy the sbatch scripts and cluster profiles into DIR/slurm.",
    details="For an installed package; a checkout has them already. Edit them there, then run sbatch slurm/launch.sh in DIR.",
    example=("my-project",),
    add_options=_add_options,
    run=_run,
)
