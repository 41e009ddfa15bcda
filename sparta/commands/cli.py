"""The command `sparta`, and the same commands as programs of jobs/."""

from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from sparta import __version__
from sparta.commands.programs import (
    evaluate,
    export_pairs,
    init_pool,
    launch,
    prepare_data,
    recipe,
    sample,
    scripts,
    status,
    study,
    verify,
)
from sparta.commands.programs.base import Program
from sparta.errors import UsageError
from sparta.names import suggested
from sparta.store.state_argument import settle_state

PROGRAMS = {
    module.PROGRAM.name: module.PROGRAM
    for module in (
        launch,
        status,
        evaluate,
        sample,
        verify,
        study,
        init_pool,
        prepare_data,
        export_pairs,
        recipe,
        scripts,
    )
}
"""Every command, by name, in the order of `sparta --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script `sparta`: `sparta COMMAND ...`. Returns the exit status."""
    parser = ArgumentParser(
        prog="sparta",
        description="Sparta Alignment: a pool of language models duels, judges itself and learns from the outcome.",
        epilog="sparta COMMAND --help explains a command.",
    )
    _add_version(parser)
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh"),
        default=SUPPRESS,
        help='print the tab completion for a shell; in bash: eval "$(sparta --print-completion bash)"',
    )
    commands = parser.add_subparsers(dest="program", metavar="COMMAND", required=True)
    parsers = {
        name: _filled(commands.add_parser(name, help=program.summary), program)
        for name, program in PROGRAMS.items()
    }
    args = parser.parse_args(argv)
    name = args.program
    del args.program
    return _execute(PROGRAMS[name], parsers[name], args)


def run_program(name: str) -> int:
    """The program jobs/NAME.py: the command of that name, with the arguments of this process. Returns the exit status."""
    program = PROGRAMS[name.replace("_", "-")]
    parser = _filled(ArgumentParser(), program)
    return _execute(program, parser, parser.parse_args())


def _filled(parser: ArgumentParser, program: Program) -> ArgumentParser:
    """`parser` with the texts and options of `program`."""
    parser.description = f"{program.summary} {program.details}"
    parser.epilog = f"For example: {suggested(program.name.replace('-', '_'), *program.example)}"
    _add_version(parser)
    program.add_options(parser)
    return parser


def _add_version(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--version", action="version", version=f"sparta {__version__}", help="print the version and exit"
    )


def _execute(program: Program, parser: ArgumentParser, args: Namespace) -> int:
    try:
        settle_state(args)
        return program.run(args)
    except UsageError as error:
        parser.error(str(error))


class _PrintCompletion(Action):
    """Prints the completion script of a parser and ends the command, as --version does."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        from sparta.commands.completion import completion

        print(completion(parser, values))
        parser.exit()
