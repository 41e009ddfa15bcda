"""The command line that shows where a run stands."""

from argparse import ArgumentParser, Namespace

from sparta.commands.options import exit_on_error
from sparta.commands.programs.base import Program
from sparta.names import DEFAULT_STATE
from sparta.store.state_argument import add_state


def _add_options(parser: ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def _run(args: Namespace) -> int:
    from sparta.commands.study_request import StudyRequest, is_study

    state = args.state or DEFAULT_STATE
    with exit_on_error(place=state):
        if is_study(state):
            from sparta.commands.study import carry_out
            from sparta.screen import Screen

            return int(carry_out(StudyRequest(str(state), status=True, json=args.json), Screen()))

        from sparta.status.collect import status_of
        from sparta.status.tables import as_json, show_status
        from sparta.store.layout import StateDir
        from sparta.store.run import Run

        status = status_of(Run.open(StateDir(state)))
        if args.json:
            print(as_json(status))
        else:
            show_status(status, state)
    return status.exit_code


PROGRAM = Program(
    name="status",
    summary="Show where a run stands, or a study.",
    details="Exit status: 0 done, 1 failed, 3 in progress. It only reads: run it at any time, on any machine that sees the state.",
    example=("state/mine",),
    add_options=_add_options,
    run=_run,
)
