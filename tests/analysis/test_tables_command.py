"""analysis/tables.py as a person types it: tables on the screen, files in a folder, reasons on standard error."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_run import ROOT, begin

from analysis.tables import main


def test_it_runs_from_anywhere(state: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "analysis/tables.py"), str(state), "--only", "results"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("**Results of the combats, as shares**")


def test_files_are_written_and_what_is_absent_is_named(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(state), "--out", str(out), "--format", "latex", "--only", "table1,table3,results"]) == 0
    assert {path.name for path in out.iterdir()} == {"table1.tex", "results.tex", "results.svg"}
    said = capsys.readouterr()
    assert "no table table3: ablations are cells of a study" in said.err
    assert said.out.splitlines() == [str(out / name) for name in ("table1.tex", "results.tex", "results.svg")]


def test_a_run_that_has_just_begun_gets_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(begin(tmp_path).state.root)]) == 0
    said = capsys.readouterr()
    assert "table1: nothing was scored on a test split yet" in said.err and "Items of each task" in said.out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "tabel1"])
    assert "there is no table tabel1: did you mean table1?" in capsys.readouterr().err
