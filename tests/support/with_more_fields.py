"""A command of jobs/ as a later version would run it, whose records all have more fields: python with_more_fields.py launch --state DIR."""

import runpy
import sys
from pathlib import Path

import msgspec

from sparta.store import records
from sparta.store.row_schema import Record

LATER = [
    ("later_text", str, ""),
    ("later_number", float, 0.0),
    ("later_choice", str | None, None),
    ("later_map", dict[str, float], msgspec.field(default_factory=dict)),
]


def grow() -> list[str]:
    """Give every record more fields and return the names of the records. Call it before anything imports them by name."""
    grown = [name for name, of in vars(records).items() if isinstance(of, type) and issubclass(of, Record)]
    grown.remove(Record.__name__)
    for name in grown:
        later = msgspec.defstruct(name, LATER, bases=(getattr(records, name),), frozen=True)
        setattr(records, name, later)
    return grown


if __name__ == "__main__":
    grow()
    sys.argv = sys.argv[1:]
    jobs = Path(__file__).parents[2] / "jobs"
    sys.path.insert(0, str(jobs))
    runpy.run_path(str(jobs / f"{sys.argv[0]}.py"), run_name="__main__")
