"""Test inputs with expected values, kept beside the repository: one JSON object a line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.scripted_run import ROOT

CASES = Path(os.environ.get("SPARTA_CASES", ROOT.parent / "shared" / "cases"))


def cases(name: str, shown: str) -> list[Any]:
    """The rows of a file as test parameters; one skipped parameter where the file is missing. shown: the field that names a row."""
    path = CASES / name
    if not path.is_file():
        missing = f"{path} is not there: put it there, or name its folder in SPARTA_CASES"
        return [pytest.param({}, marks=pytest.mark.skip(reason=missing), id=name)]
    # Not splitlines: texts may contain other line separators.
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [pytest.param(row, id=ascii(row[shown])[1:41]) for row in rows]
