"""What a command line is made of."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One command.

    name: as `sparta NAME` is typed; its file under jobs/ has the same name with underscores. summary: one line that says what it does.
    details: what else a reader of --help must know. example: arguments that
    --help shows. add_options: puts the options into a parser. run: does what the parsed options ask for
    and returns the exit status; raises UsageError where they contradict each other.
    """

    name: str
    summary: str
    details: str
    example: tuple[str, ...]
    add_options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
