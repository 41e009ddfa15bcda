"""Files that were proved are not read again until somebody touches them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from sparta.commands.begin import check_state
from sparta.errors import SpartaError
from sparta.store import manifest, proved
from sparta.store.layout import StateDir
from sparta.store.run import Run


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    run = begin(tmp_path)
    for t in (1, 2):
        advance(run, t)
    return run.state


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders and files of iterations that a check reads."""
    seen: list[Path] = []
    rows, file = manifest._verify_rows, manifest._verify_file

    def rows_seen(iteration: manifest.IterationDir, name: str, *rest: object) -> None:
        seen.append(iteration.root / name)
        rows(iteration, name, *rest)  # type: ignore[arg-type]

    def file_seen(iteration: manifest.IterationDir, name: str, *rest: object) -> None:
        seen.append(iteration.root / name)
        file(iteration, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(manifest, "_verify_rows", rows_seen)
    monkeypatch.setattr(manifest, "_verify_file", file_seen)
    yield seen


def _settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been there for a while."""
    monkeypatch.setattr(proved, "_SETTLED_SECONDS", -1.0)


def test_a_second_check_reads_nothing_and_a_touched_file_again(
    state: StateDir, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _settle(monkeypatch)
    check_state(Run.open(state)).save()
    assert len(read) > 20
    read.clear()
    check_state(Run.open(state))
    assert read == []
    os.utime(state.iteration(1).plan)
    check_state(Run.open(state))
    assert read == [state.iteration(1).plan]


def test_files_that_changed_a_moment_ago_are_read_again(state: StateDir, read: list[Path]) -> None:
    check_state(Run.open(state)).save()
    read.clear()
    check_state(Run.open(state))
    assert read, "a later change within the clock's grain would not be seen"


@pytest.mark.parametrize(
    "name", ["plan.jsonl", "standing.json", "votes", "adapters/model0/adapter_model.safetensors"]
)
def test_a_change_that_restores_size_and_time_is_found(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _settle(monkeypatch)
    check_state(Run.open(state)).save()
    path = state.iteration(1).root / name
    if path.is_dir():
        path = next(each for each in path.iterdir() if each.stat().st_size)
    was, data = path.stat(), path.read_bytes()
    time.sleep(0.02)
    # The last field of a row is a measurement.
    at = data.find(b"model") if path.suffix == ".jsonl" else len(data) - 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(SpartaError, match=name.split("/")[0]):
        check_state(Run.open(state))


def test_a_shard_that_was_added_or_lost_is_found(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(monkeypatch)
    check_state(Run.open(state)).save()
    votes = state.iteration(1).votes
    [shard] = [path for path in votes.iterdir() if path.stat().st_size]
    shard.rename(votes.parent / "elsewhere")
    with pytest.raises(SpartaError, match="0 rows"):
        check_state(Run.open(state))


def test_a_damaged_record_only_costs_time(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, read: list[Path]
) -> None:
    _settle(monkeypatch)
    check_state(Run.open(state)).save()
    (state.jobs / "proved.json").write_text("{")
    read.clear()
    check_state(Run.open(state))
    assert len(read) > 20


def test_a_dry_run_writes_no_record(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    _settle(monkeypatch)
    check_state(Run.open(state))
    assert not (state.jobs / "proved.json").exists()
