"""The one exception a person is meant to read.

Everything a user can cause (a bad recipe, an edited state, a full disk) is raised as `SpartaError`: one sentence that says what is
wrong, where, and what to do. The commands print it and exit with status 1. Anything else is a bug and keeps its traceback.
"""


class SpartaError(Exception):
    """What is wrong, where, and what to do about it, in one sentence."""
