"""Score a run's models on its task: python jobs/evaluate.py [state]"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from sparta.cluster.console import Screen
from sparta.cluster.scoring import score, summary_file, summary_table
from sparta.errors import SpartaError
from sparta.recipe import ClusterKind
from sparta.store.layout import StateDir


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "state", nargs="?", type=Path, default=Path("state"), help="the state directory (default: state)"
    )
    parser.add_argument(
        "--all", action="store_true", help="every pool of the run, not the first and the last alone"
    )
    parser.add_argument(
        "--cluster", choices=get_args(ClusterKind), help="where models answer (default: the recipe's)"
    )
    parser.add_argument(
        "--profile", metavar="P", help="answer on SLURM as this YAML file, or name under slurm/profiles, says"
    )
    args = parser.parse_args()
    screen, state = Screen(), StateDir(args.state)
    try:
        summary = score(state, args.all, screen, args.cluster, args.profile)
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: what is done is on disk; the same command goes on", file=sys.stderr)
        return 130
    screen.console.print(summary_table(summary))
    screen.say(f"written to {summary_file(state, summary.task)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
