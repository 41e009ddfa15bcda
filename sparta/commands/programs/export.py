"""The command line that exports one model of a run, for other programs and people."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--best",
        action="store_true",
        help="the checkpoint that `evaluate` chose on validation, among all pools if all were scored (default)",
    )
    parser.add_argument(
        "--task", metavar="T", help="with --best: the task that it was chosen on, if there are several"
    )
    parser.add_argument("--model", metavar="NAME", help="this member of the pool instead")
    parser.add_argument(
        "--iteration", type=int, metavar="T", help="with --model: after iteration T (default: the last one)"
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="weights of the base with the adapter merged into them, instead of the adapter; needs memory for the base",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the folder to make (default: exports/CHECKPOINT in the state)",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="also upload the folder to the Hugging Face hub, into a repository that is private if it is new; needs HF_TOKEN",
    )


def _run(args: Namespace) -> int:
    from sparta.commands.export_model import ExportRequest, export_model
    from sparta.screen import Screen

    with exit_on_error():
        fields = {**vars(args), "state": args.state or DEFAULT_STATE}
        export_model(ExportRequest(**fields), Screen())
    return 0


PROGRAM = Program(
    name="export",
    summary="Export one model of a run: adapter or merged weights, tokenizer, chat template, model card.",
    details="Without --model it exports the checkpoint that `evaluate` chose on validation.",
    example=("state/mine", "--merge"),
    add_options=_add_options,
    run=_run,
)
