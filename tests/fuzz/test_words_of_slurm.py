"""What SLURM's programs print is read, or refused in words, whatever bytes come."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import EXAMPLES, fuzzed, within_bounds
from support.mangled import mangled

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli, submit
from sparta.cluster.slurm.cli import SlurmUnavailable
from sparta.cluster.slurm.profile import load_profile
from sparta.cluster.slurm.submit import Array
from sparta.cluster.slurm.worker import ShardJob

PROGRAMS = ("squeue", "sacct", "sacctmgr", "sinfo", "scontrol", "sbatch", "scancel")
QUEUE = (
    b"1234|7|RUNNING|None|node1|sparta-x|/home/me/state\n1235|N/A|PENDING|Priority||sparta-x|/home/me/state\n"
)
fewer = settings(fuzzed, max_examples=max(20, EXAMPLES // 3))
"""Each example starts processes."""


def _queue() -> None:
    for entry in cli.tasks_named(["sparta-x"]):
        assert entry.element >= 0


def _accounting() -> None:
    cli.states_in_accounting(["12", "13_4"])


def _partitions() -> None:
    assert all(seconds >= 0 for seconds in cli.partitions().values())


def _array_size() -> None:
    assert cli.largest_array() >= 1


READERS: dict[str, tuple[str, bytes, Callable[[], object]]] = {
    "squeue": ("squeue", QUEUE, _queue),
    "sacct": ("sacct", b"12|COMPLETED\n13_4|CANCELLED by 0\n", _accounting),
    "sacctmgr": ("sacctmgr", b"one\ntwo\n", cli.known_clusters),
    "sinfo": ("sinfo", b"gpu|infinite\nshort|1:00:00\nlong|7-00:00:00\n", _partitions),
    "scontrol": ("scontrol", b"MaxArraySize            = 1001\nMaxJobCount = 10000\n", _array_size),
}


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], None]:
    """Makes a program of SLURM print these bytes, and the others nothing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(
            f"#!/bin/sh\ncat >/dev/null\ncat {tmp_path}/said-{name} 2>/dev/null\nexit 0\n"
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def prints(name: str, said: bytes) -> None:
        (tmp_path / f"said-{name}").write_bytes(said)
        for cached in (cli.known_clusters, cli.largest_array, cli._keeps_accounts):
            cached.cache_clear()

    yield prints  # type: ignore[misc]
    for cached in (cli.known_clusters, cli.largest_array, cli._keeps_accounts):
        cached.cache_clear()


@pytest.mark.parametrize("what", READERS)
@fewer
@given(st.data())
def test_answers(prints: Callable[[str, bytes], None], what: str, data: st.DataObject) -> None:
    program, sample, read = READERS[what]
    prints(program, data.draw(mangled(sample)))
    with within_bounds(), suppress(SlurmUnavailable):
        read()


@fewer
@given(said=mangled(b"Submitted batch job 4711\n") | mangled(b"4711;one\n"))
def test_the_answer_to_a_submission(
    prints: Callable[[str, bytes], None], tmp_path: Path, said: bytes
) -> None:
    prints("sbatch", said)
    prints("squeue", b"")
    profile = load_profile("devcluster")
    work, shape = ShardJob(tmp_path / "state", (Piece("judge", 1, 0),)), profile.shape("judge", "gpu")
    array = Array("name", work, 0, 2, 1, shape, tmp_path / "logs", tmp_path / "state" / "code" / "x")
    for one in (array, replace(array, places=("one",))):
        with within_bounds(), suppress(SlurmUnavailable):
            number = cli.number_of(submit._ask_sbatch(tmp_path / "script.sh", one, profile))
            assert number.isdecimal() and number.isascii()


@fuzzed
@given(mangled(b"1-02:03:04") | st.text(alphabet="0123456789:-²٣", max_size=12).map(str.encode))
def test_durations(said: bytes) -> None:
    assert cli.seconds_of(said.decode(errors="replace")) >= 0
