"""Every analysis command takes the state directory as an argument and as --state."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.program import parser_of, run_program

FOLDER = Path(__file__).parents[2] / "analysis"
COMMANDS = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text())


@pytest.fixture(params=COMMANDS)
def main(request: pytest.FixtureRequest) -> Callable[[list[str]], int]:
    found: Callable[[list[str]], int] = importlib.import_module(f"analysis.{request.param}").main
    return found


def test_there_are_analysis_commands() -> None:
    assert {"curves", "rerate", "truth"} <= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["DIR"], ["--state", "DIR"], ["DIR", "--state", "DIR"]])
def test_the_state_is_an_argument_or_an_option(
    main: Callable[[list[str]], int], arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = str(tmp_path / "nowhere")
    assert main([state if word == "DIR" else word for word in arguments]) == 1
    assert f"error: {state} holds no run" in capsys.readouterr().err


def test_without_either_it_is_the_folder_state(
    main: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "error: state holds no run" in capsys.readouterr().err


def test_two_different_states_are_refused(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["one", "--state", "two"])
    assert caught.value.code == 2
    assert (
        "two state directories are given, one and --state two: leave one of them out"
        in capsys.readouterr().err
    )


def test_an_error_of_the_disk_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    def work(args: argparse.Namespace, state: Path) -> None:
        (tmp_path / "file" / "out").mkdir()

    assert run_program(parser_of("..."), [], work) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and str(tmp_path / "file") in said


def test_an_interrupt_ends_with_its_status() -> None:
    def work(args: argparse.Namespace, state: Path) -> None:
        raise KeyboardInterrupt

    assert run_program(parser_of("..."), [], work) == 130
