"""What a command line is made of."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One command.

    name: as in `sparta NAME`; its file under jobs/ has the same name with underscores. summary: what it does, in one line. details: what else
    a reader of --help must know. example: arguments that --help shows. add_options: adds the options to a parser. run: carries out the parsed
    options and returns the exit status; raises UsageError where they contradict each other.
    """

    name: str
    summary: str
    details: str
    example: tuple[str, ...]
    add_options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
