"""Start or continue a run of Sparta Alignment: python jobs/launch.py --iters 8"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from sparta.cluster.console import Screen
from sparta.cluster.launch import Asked, command_to_continue, launch
from sparta.errors import SpartaError
from sparta.recipe import ClusterKind


def main() -> int:
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
        help="change one value of the recipe, e.g. match.k=3",
    )
    parser.add_argument(
        "--cluster", choices=get_args(ClusterKind), help="where phases run (default: the recipe's)"
    )
    parser.add_argument(
        "--profile", metavar="P", help="run on SLURM as this YAML file, or name under slurm/profiles, says"
    )
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
        "--dry-run", action="store_true", help="check everything and print the plan; start nothing"
    )
    parser.add_argument(
        "--detach", action="store_true", help="submit the jobs of all iterations to SLURM at once and leave"
    )
    parser.add_argument(
        "--cancel", action="store_true", help="end the run's tasks and jobs; what is done stays"
    )
    args = parser.parse_args()
    asked = Asked(**vars(args))
    try:
        launch(asked, Screen())
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\ninterrupted: what is done is on disk; go on with\n  {command_to_continue(asked)}",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
