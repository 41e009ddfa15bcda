"""Cells of a study start as forks of one process: each with its own session, environment, log and exit status."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_run import quiet, wait_until

import sparta
from sparta.commands.cell_server import CellServer
from sparta.errors import SpartaError
from sparta.store.process import runs


@pytest.fixture
def server() -> Iterator[CellServer]:
    server = CellServer(("sparta.commands.cli",))
    yield server
    server.close()


def test_a_fork_runs_a_command_line_and_its_exit_status_is_known(server: CellServer, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    good = server.start(["--version"], quiet(), tmp_path / "log")
    bad = server.start(["study", "nothing", "--status"], quiet(), tmp_path / "bad")
    assert good.pid != bad.pid and os.getsid(0) != good.pid
    wait_until(lambda: good.returncode is not None and bad.returncode is not None)
    assert (good.returncode, bad.returncode) == (0, 1)
    assert (tmp_path / "log").read_text() == f"before\nsparta {sparta.__version__}\n"
    assert "there is no study nothing" in (tmp_path / "bad").read_text()


def test_a_killed_server_is_replaced_and_the_status_of_its_forks_is_unknown(
    server: CellServer, tmp_path: Path
) -> None:
    first = server.start(["--version"], quiet(), tmp_path / "log")
    assert server._server is not None
    os.kill(server._server.pid, signal.SIGSTOP)
    wait_until(lambda: not runs(first.pid))
    os.kill(server._server.pid, signal.SIGKILL)
    server._server.wait()
    assert first.returncode is None and not first.watched
    second = server.start(["--version"], quiet(), tmp_path / "log")
    assert second.watched
    wait_until(lambda: second.returncode == 0)
    assert second.watched


def test_a_server_that_cannot_start_ends_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server = CellServer(("there_is_no_such_module",))
    with pytest.raises(SpartaError, match="from which cells are started ended at once, twice"):
        server.start(["--version"], quiet(), tmp_path / "log")
    assert "No module named 'there_is_no_such_module'" in capfd.readouterr().err
