"""The one exception a person is meant to read.

Everything a user can cause (a bad recipe, an edited state, a full disk) is raised as `SpartaError`: one sentence that says what is
wrong, where, and what to do. The commands print it and exit with status 1. Anything else is a bug and keeps its traceback. What is wrong and
stops nothing is a `note`.
"""

import sys
from functools import cache


class SpartaError(Exception):
    """What is wrong, where, and what to do about it, in one sentence."""


@cache
def note(text: str) -> None:
    """Tell whoever reads standard error, once a process, of something that is not as it should be and stops nothing."""
    print(f"note: {text}", file=sys.stderr, flush=True)
