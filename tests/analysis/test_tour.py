"""analysis/tour.ipynb: all its cells run, on a small state, and it is stored without outputs.

Cells are run as a kernel would, one after the other in one namespace, and the value of a last line is what a notebook shows. Jupyter itself, 25 packages with
a debugger and a web server, is not needed for that.
"""

import argparse
import ast
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.scripted_run import ROOT

from sparta.commands.programs import export

TOUR = ROOT / "analysis" / "tour.ipynb"
CELLS: list[dict[str, Any]] = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def _as_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A notebook's kernel starts in its folder. The notebook leaves it, and changes sys.path."""
    monkeypatch.chdir(TOUR.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = os.environ.get("MPLBACKEND")
    monkeypatch.setenv("MPLBACKEND", before or "agg")
    yield
    import matplotlib.pyplot

    matplotlib.pyplot.close("all")


def shown_by(text: str, namespace: dict[str, Any]) -> object:
    """Runs a cell. The value of its last line, if that is an expression."""
    body = ast.parse(text).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), str(TOUR), "exec"), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), str(TOUR), "eval"), namespace)


@pytest.mark.usefixtures("_as_in_a_kernel")
def test_every_cell_of_the_tour_runs_and_it_ends_with_a_model(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in CELLS:
        if cell["cell_type"] != "code":
            continue
        shown.append(shown_by("".join(cell["source"]), namespace))
        if "parameters" in cell["metadata"].get("tags", ()):
            assert namespace["state"] == "state/demo", "the state that make demo leaves"
            namespace["state"] = str(state)
    tables = [value for value in shown if isinstance(value, pd.DataFrame)]
    assert len(tables) >= 4 and all(len(table) for table in tables)
    assert sum(type(value).__name__ == "Figure" for value in shown) == 2
    said = capsys.readouterr().out.splitlines()
    assert Path(said[1]).is_dir() and Path(said[1]).parent.name == "adapters"
    command = shlex.split(said[-1])
    assert command[:2] == ["python", "jobs/export.py"]
    parser = argparse.ArgumentParser()
    export.PROGRAM.add_options(parser)
    request = parser.parse_args(command[2:])
    iteration, _, model = Path(said[1]).parts[-3:]
    assert (request.model, f"iter_{request.iteration:02d}") == (model, iteration)


def test_the_tour_is_stored_without_outputs_as_jupyter_writes_it() -> None:
    tree = json.loads(TOUR.read_text(encoding="utf-8"))
    assert TOUR.read_text(encoding="utf-8") == json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    assert (tree["nbformat"], tree["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
