"""The command line of a launch."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import add_run, exit_on_error
from sparta.commands.programs.base import Program


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--iters",
        type=int,
        metavar="T",
        dest="iterations",
        help="how many iterations the run has; a higher number than before continues a finished run",
    )
    add_run(parser)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR/iter_NN",
        help="go back to a committed iteration; later ones are set aside, nothing is deleted",
    )
    parser.add_argument(
        "--fork", type=Path, metavar="DIR", help="with --resume: leave that run alone and branch into DIR"
    )
    parser.add_argument(
        "--cancel", action="store_true", help="cancel the run's tasks and jobs; finished work stays"
    )


def _run(args: Namespace) -> int:
    from sparta.commands.launch import command_to_continue, launch
    from sparta.commands.launch_request import LaunchRequest
    from sparta.screen import Screen

    request = LaunchRequest(**vars(args))
    with exit_on_error(
        lambda: f"continue with\n  {command_to_continue(request)}", request.fork or request.state
    ):
        launch(request, Screen())
    return 0


PROGRAM = Program(
    name="launch",
    summary="Start or continue a run.",
    details="The same command continues a run that was interrupted (without --resume, which would roll back again).",
    example=("--iters", "8"),
    add_options=_add_options,
    run=_run,
)
