"""Start or continue a run of Sparta Alignment: python jobs/launch.py --iters 8"""

import argparse
from pathlib import Path

from sparta.commands.launch import command_to_continue, launch
from sparta.commands.launch_request import LaunchRequest
from sparta.commands.options import add_run, exit_on_error
from sparta.screen import Screen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The same command continues a run that was interrupted (without --resume, which goes back again).",
    )
    parser.add_argument(
        "--iters",
        type=int,
        metavar="T",
        dest="iterations",
        help="iterations; more than before continue a finished run",
    )
    add_run(parser)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR/iter_NN",
        help="go back to a committed iteration; later ones are set aside",
    )
    parser.add_argument(
        "--fork", type=Path, metavar="DIR", help="with --resume: leave that run alone and branch into DIR"
    )
    parser.add_argument(
        "--cancel", action="store_true", help="end the run's tasks and jobs; what is done stays"
    )
    asked = LaunchRequest(**vars(parser.parse_args()))
    with exit_on_error(lambda: f"go on with\n  {command_to_continue(asked)}"):
        launch(asked, Screen())


if __name__ == "__main__":
    main()
