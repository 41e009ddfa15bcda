"""Launches as processes of their own, ended with the test whatever happens."""

from collections.abc import Iterator

import pytest
from support.scripted_run import Launched, launches


@pytest.fixture
def launched() -> Iterator[Launched]:
    """See `rehearsal.launches`."""
    with launches() as start:
        yield start
