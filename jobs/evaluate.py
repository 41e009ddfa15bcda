"""Score a run's models on its tasks: python jobs/evaluate.py [state]"""

import argparse
from pathlib import Path
from typing import get_args

from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest, Stage
from sparta.commands.options import add_where, exit_on_error
from sparta.evaluation.summary import summary_file
from sparta.evaluation.tables import show_scores
from sparta.screen import Screen
from sparta.store.layout import StateDir


def main() -> None:
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
    add_where(parser)
    asked, screen = EvaluateRequest(**vars(parser.parse_args())), Screen()
    with exit_on_error():
        found = score(asked, screen)
        show_scores(screen.console, found)
        screen.say(f"written to {summary_file(StateDir(asked.state))}")


if __name__ == "__main__":
    main()
