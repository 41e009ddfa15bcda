"""Score a run's models on its tasks: python jobs/evaluate.py [state]"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from sparta.cluster.console import Screen
from sparta.cluster.scoring import score
from sparta.cluster.summary import summary_file
from sparta.cluster.summary_view import show_scores
from sparta.cluster.wanted import Asked, Stage
from sparta.errors import SpartaError
from sparta.recipe import ClusterKind
from sparta.store.layout import StateDir


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Checkpoints are chosen on validation; the test split is asked of the chosen ones alone, and every look at it is kept.",
    )
    parser.add_argument(
        "state", nargs="?", type=Path, default=Path("state"), help="the state directory (default: state)"
    )
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="tasks to score on; own: the recipe's data.validation and data.test (default: evaluation.tasks, else data.task, else own)",
    )
    parser.add_argument(
        "--split",
        choices=get_args(Stage),
        default="both",
        help="validation: stop at the choice; test: go on from there (default: both)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="every",
        help="every pool of the run, not the first and the last alone",
    )
    parser.add_argument(
        "--select-on", metavar="TASK", help="choose on this task's validation split, for all of --tasks"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="STATE",
        help="test the scores against those of another run, item by item",
    )
    parser.add_argument(
        "--cluster", choices=get_args(ClusterKind), help="where models answer (default: the recipe's)"
    )
    parser.add_argument(
        "--profile", metavar="P", help="answer on SLURM as this YAML file, or name under slurm/profiles, says"
    )
    asked, screen = Asked(**vars(parser.parse_args())), Screen()
    try:
        found = score(asked, screen)
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: what is done is on disk; the same command goes on", file=sys.stderr)
        return 130
    show_scores(screen.console, found)
    screen.say(f"written to {summary_file(StateDir(asked.state))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
