"""The command line that samples several answers of a run's checkpoints."""

from argparse import ArgumentParser, Namespace

from sparta.commands.options import add_where, exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="the tasks whose validation items are answered; own: the recipe's data.validation (default: as for evaluate)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=10,
        metavar="N",
        help="answers of each model to each item; more only add to earlier ones (default: 10)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="sampling temperature, above 0 (default: generation.temperature, as in combats)",
    )
    parser.add_argument(
        "--items", type=int, metavar="N", help="only the first N validation items (default: all)"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        dest="every",
        help="sample from every pool of the run, not only the first and the last",
    )
    parser.add_argument(
        "--checkpoints",
        metavar="A,B",
        help="sample from these instead: iterations (iter_08: its whole pool) and checkpoints (iter_08-adder)",
    )
    parser.add_argument(
        "--graded",
        action="store_true",
        help="have the judge of the evaluation (evaluation.judge) grade how diverse each set of answers is",
    )
    add_where(parser)


def _run(args: Namespace) -> int:
    from sparta.commands.sample import sample
    from sparta.commands.sample_request import SampleRequest
    from sparta.screen import Screen

    args.state = args.state or DEFAULT_STATE
    request, screen = SampleRequest(**vars(args)), Screen()
    with exit_on_error(place=args.state):
        sample(request, screen)
    return 0


PROGRAM = Program(
    name="sample",
    summary="Sample several answers of a run's models to each validation item.",
    details="The answers are for measures of diversity (analysis/diversity.py); no score is made of them.",
    example=("state/mine", "--samples", "10"),
    add_options=_add_options,
    run=_run,
)
