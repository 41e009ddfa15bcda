"""How every program of this folder begins and ends."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sparta.errors import SpartaError, UsageError
from sparta.names import DEFAULT_STATE
from sparta.store.disk import os_errors_in_words
from sparta.store.state_argument import add_state, settle_state


def parser_of(page: str | None) -> argparse.ArgumentParser:
    """A parser of a state's folder. page: the docstring of the program, for --help."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_state(parser)
    return parser


def run_program(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace, Path], None],
) -> int:
    """Do `work` (the parsed arguments, the state's folder). Returns the exit status: 1 after an error, said in one sentence; 130 after Ctrl-C."""
    args = parser.parse_args(arguments)
    try:
        settle_state(args)
        state = args.state or DEFAULT_STATE
        with os_errors_in_words(state):
            work(args, state)
    except UsageError as error:
        parser.error(str(error))
    except SpartaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
