"""What the lines of a state's files have in common: they can grow, and no file or hash of an earlier version changes with them.

A field that comes later stands behind the others and has a default that means what rows without it meant. Where it has that value it is
written in no line and covered by no hash, so what was committed without it stays valid, and a run that does not use it makes the bytes
that it made before.
"""

from functools import cache
from typing import ClassVar

import msgspec

MEASUREMENTS = ("seconds",)
"""Fields that may differ between two rows of one key and that no hash covers; written with any value."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a file.

    written_at_default: fields with a default that lines and hashes hold with any value, because they are older than the rule. It never grows.
    """

    written_at_default: ClassVar[tuple[str, ...]] = ()


def left_out(record: Record) -> list[str]:
    """Fields that neither the line nor the hash of `record` holds: those that may be left out and are at their default."""
    return [name for name, default in _optional(type(record)) if getattr(record, name) == default]


@cache
def _optional(of: type[Record]) -> tuple[tuple[str, object], ...]:
    """Names and defaults of the fields of `of` that are left out at their default."""
    always = (*of.written_at_default, *MEASUREMENTS)
    fields = msgspec.structs.fields(of)
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in fields
        if not field.required and field.name not in always
    )
