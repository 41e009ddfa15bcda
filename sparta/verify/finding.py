"""What a check of a state finds, and the parts of a method that checks need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.store.records import Row


class Finding(msgspec.Struct, frozen=True):
    """One thing that a check found. check: the name of the check. iteration: None if it is of the whole run. what: a sentence with the remedy.

    wrong: False for a note: what a reader should know, but no result is wrong.
    """

    check: str
    what: str
    iteration: int | None = None
    wrong: bool = True


@dataclass(frozen=True)
class MethodParts:
    """What a method says about its iterations. phases, learners: of iteration t. row_types: by name of the folder of shards."""

    phases: Callable[[int], Sequence[Phase]]
    learners: Callable[[int], Sequence[str]]
    row_types: Mapping[str, type[Row]]


@contextmanager
def errors_into(found: list[Finding], check: str, t: int | None = None) -> Iterator[None]:
    """A block whose SpartaError becomes a finding."""
    try:
        yield
    except SpartaError as error:
        found.append(Finding(check, str(error), t))


def counted(number: int, what: str) -> str:
    """`number` things in words: 1 row, 3 rows."""
    return f"{number:,} {what}{'s' * (number != 1)}"
