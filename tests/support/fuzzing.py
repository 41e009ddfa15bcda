"""How the tests with bad bytes run: how many examples, and within which bounds a reader must stay."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings

from sparta.errors import SpartaError

SECONDS = 10.0
"""Far more than any of these takes, also on a machine that is busy."""
MIB = 400.0

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""Of each test; with more than in CI they are drawn anew each time."""
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 60,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@contextmanager
def within_bounds(names: str = "") -> Iterator[None]:
    """A block that ends well or with a sentence that has `names` in it, soon and without much memory."""
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    except SpartaError as error:
        said = str(error)
        assert names in said, said
        assert len(said) < 5000 and all(line.isprintable() for line in said.split("\n")), said
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024 < MIB


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
