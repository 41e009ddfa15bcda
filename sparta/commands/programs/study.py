"""The command line of a study."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import add_where, exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import suggested


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "study",
        metavar="STUDY",
        help="a study file, the name of one of the suite, such as table3, or the folder of a study that has begun",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="the folder of the study (default: state/studies/NAME)"
    )
    add_where(parser)
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="GPUs (without GPUs: cores) that all running cells use together (default: the study's)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the cells, their GPU-hours and disk, and what stands in their way; start nothing",
    )
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="download the models of the Hugging Face hub that its recipes name, and exit",
    )
    parser.add_argument("--status", action="store_true", help="show where every cell stands, and exit")
    parser.add_argument(
        "--table",
        action="store_true",
        help="show the scores of the cells that are done, compared over seeds, and exit",
    )
    parser.add_argument("--json", action="store_true", help="with --status or --table: print one JSON object")
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="stop the cells of a study that nobody drives, and their tasks and jobs",
    )
    parser.add_argument(
        "--detach", action="store_true", help="submit the study's driver to SLURM as a small job, and exit"
    )
    parser.add_argument(
        "--cell",
        metavar="NAME",
        help="run this cell alone, in this process, as the study's driver does; STUDY is a folder",
    )
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="with --cell: the GPUs (or cores) that it may use"
    )


def _run(args: Namespace) -> int:
    from sparta.commands.study import carry_out
    from sparta.commands.study_request import StudyRequest
    from sparta.screen import Screen

    request = StudyRequest(**vars(args))
    again = suggested("study", request.study, *(("--state", request.state) if request.state else ()))
    with exit_on_error(lambda: f"continue with\n  {again}", request.state):
        status = carry_out(request, Screen())
    return int(status)


PROGRAM = Program(
    name="study",
    summary="Run a grid of runs: show it, start it, continue it, compare its cells.",
    details="The same command continues a study, tries failed cells again, and runs cells that were added to the file. Exit status of --status: 0 done, "
    "1 failed, 3 in progress.",
    example=("toy", "--dry-run"),
    add_options=_add_options,
    run=_run,
)
