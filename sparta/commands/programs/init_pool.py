"""The command line that makes a run's initial pool."""

from argparse import ArgumentParser, Namespace

from sparta.commands.options import add_run, exit_on_error
from sparta.commands.programs.base import Program
from sparta.errors import UsageError


def _add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="only download the models that the recipe names hub:...; run this where there is a network",
    )
    parser.add_argument(
        "--update", action="store_true", help="with --fetch: replace downloaded models by their newer commits"
    )


def _run(args: Namespace) -> int:
    fields = vars(args)
    only_fetch, update = fields.pop("fetch"), fields.pop("update")
    if update and not only_fetch:
        raise UsageError("--update needs --fetch")

    from sparta.commands.launch import command_to_continue, fetch_models, launch
    from sparta.commands.launch_request import LaunchRequest
    from sparta.screen import Screen

    request, screen = LaunchRequest(**fields, pool_only=True), Screen()
    if only_fetch:
        with exit_on_error():
            fetch_models(request, update, screen)
        return 0
    with exit_on_error(lambda: f"continue with\n  {command_to_continue(request)}", request.state):
        launch(request, screen)
    return 0


PROGRAM = Program(
    name="init-pool",
    summary="Make a run's initial pool, and nothing more. A launch makes it too.",
    details="Experts are trained from data, one task each. After an interrupt, the same command continues.",
    example=("--recipe", "paper/experts", "--state", "state/experts"),
    add_options=_add_options,
    run=_run,
)
