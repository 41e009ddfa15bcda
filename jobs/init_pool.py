"""Make a run's initial pool, and nothing more: python jobs/init_pool.py --recipe R --state DIR. A launch makes it too."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from sparta.cluster.console import Screen
from sparta.cluster.fetching import fetch
from sparta.cluster.launch import Asked, asked_recipe, command_to_continue, launch
from sparta.errors import SpartaError
from sparta.recipe import ClusterKind


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Experts are trained from data, one task each; the same command goes on with what was interrupted.",
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
        help="change one value of the recipe, e.g. pool.sft.epochs=3",
    )
    parser.add_argument(
        "--cluster", choices=get_args(ClusterKind), help="where experts are trained (default: the recipe's)"
    )
    parser.add_argument(
        "--profile", metavar="P", help="train on SLURM as this YAML file, or name under slurm/profiles, says"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check pool and data, estimate memory; start nothing"
    )
    parser.add_argument("--detach", action="store_true", help="submit the jobs to SLURM and leave")
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="only fetch what the pool names hub:..., where there is a network",
    )
    parser.add_argument(
        "--update", action="store_true", help="with --fetch: take newer commits of what is there"
    )
    args = vars(parser.parse_args())
    only_fetch, update = args.pop("fetch"), args.pop("update")
    if update and not only_fetch:
        parser.error("--update goes with --fetch")
    asked, screen = Asked(**args, pool_only=True), Screen()
    try:
        if only_fetch:
            fetch(asked_recipe(asked, screen), update, screen)
        else:
            launch(asked, screen)
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "the same command" if only_fetch else command_to_continue(asked)
        print(f"\ninterrupted: what is done is on disk; go on with\n  {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
