"""The base of all row types: fields can be added without changing files or hashes of earlier versions.

A new field comes last and has a default that means what rows without it meant. At that value it is neither written nor hashed, so earlier commits
stay valid, and a run that does not use the field writes the same bytes as before.
"""

from functools import cache
from typing import ClassVar

import msgspec

MEASUREMENTS = ("seconds",)
"""Fields that may differ between two rows with one key. They are always written and never hashed."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a file.

    written_at_default: fields with a default that are written and hashed even at that value, because they are older than the rule. Never add one.
    """

    written_at_default: ClassVar[tuple[str, ...]] = ()


def left_out(record: Record) -> list[str]:
    """Fields left out of the line and the hash of `record`: optional ones at their default."""
    return [name for name, default in _optional(type(record)) if getattr(record, name) == default]


@cache
def _optional(of: type[Record]) -> tuple[tuple[str, object], ...]:
    """Names and defaults of the fields of `of` that are left out at their default value."""
    always = (*of.written_at_default, *MEASUREMENTS)
    fields = msgspec.structs.fields(of)
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in fields
        if not field.required and field.name not in always
    )
