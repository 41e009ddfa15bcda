"""The command line that scores a run's checkpoints."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from sparta.commands.options import Stage, add_where, exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="the tasks to score on; own: the recipe's data.validation and data.test (default: evaluation.tasks, else data.task, else own)",
    )
    parser.add_argument(
        "--split",
        choices=get_args(Stage),
        default="both",
        help="validation: stop once checkpoints are chosen; test: continue from there (default: both)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="every",
        help="score every pool of the run, not only the first and the last",
    )
    parser.add_argument(
        "--select-on",
        metavar="TASK",
        help="choose checkpoints on the validation split of this task, for all of --tasks",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="STATE",
        help="test the scores against those of another run, item by item",
    )
    parser.add_argument(
        "--answers-from",
        type=Path,
        metavar="STATE",
        help="adopt the answers of another run where they would be the same: same weights, same items, same prompts",
    )
    add_where(parser)


def _run(args: Namespace) -> int:
    from sparta.commands.evaluate import score
    from sparta.commands.evaluate_request import EvaluateRequest
    from sparta.evaluation.summary import summary_file
    from sparta.evaluation.tables import show_scores
    from sparta.screen import Screen
    from sparta.store.layout import StateDir

    args.state = args.state or DEFAULT_STATE
    request, screen = EvaluateRequest(**vars(args)), Screen()
    with exit_on_error(place=args.state):
        found = score(request, screen)
        show_scores(screen.console, found)
        screen.say(f"written to {summary_file(StateDir(request.state))}")
    return 0


PROGRAM = Program(
    name="evaluate",
    summary="Score the models of a run on its tasks.",
    details="Checkpoints are chosen on validation. Only the chosen ones answer the test split, and every test-set access is logged.",
    example=("state/mine", "--all"),
    add_options=_add_options,
    run=_run,
)
