"""Records can get new fields: earlier commits stay valid, and a run that does not use a new field writes the same bytes."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import DEADLINE, ROOT, manifests, quiet, typed
from support.store_samples import EARLIER_STATE, vote

from sparta.commands.begin import check_state
from sparta.store.files import encode_row, read_rows
from sparta.store.layout import StateDir
from sparta.store.records import Vote
from sparta.store.row_schema import Record
from sparta.store.run import Run
from sparta.store.shards import ShardReader, rows_digest

WHOLE = ("plan.jsonl", "combats.jsonl", "preferences.jsonl", "standing.json", "pool.json")


class LaterVote(Vote, frozen=True):
    """A vote as a later version may know it."""

    mood: str = ""
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    seconds_alone: float = 0.0


@pytest.fixture
def earlier(tmp_path: Path) -> StateDir:
    return StateDir(Path(shutil.copytree(EARLIER_STATE, tmp_path / "state")))


def later(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """A command as a version would run it whose records have more fields."""
    script = ROOT / "tests" / "support" / "with_more_fields.py"
    return subprocess.run(
        [sys.executable, str(script), name, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=DEADLINE,
        env={**quiet(), "PYTHONPATH": str(ROOT)},
    )


def test_a_state_of_an_earlier_version_is_valid(earlier: StateDir) -> None:
    check_state(Run.open(earlier))
    assert earlier.committed() == [0, 1]


def test_a_version_with_more_fields_continues_an_earlier_state_and_makes_the_same_bytes(
    earlier: StateDir, tmp_path: Path
) -> None:
    other = StateDir(Path(shutil.copytree(EARLIER_STATE, tmp_path / "other")))
    for done in (
        typed("launch", "--state", earlier.root, "--iters", 3),
        later("launch", "--state", other.root, "--iters", 3),
    ):
        assert done.returncode == 0, done.stdout + done.stderr
    assert earlier.committed() == other.committed() == [0, 1, 2, 3]
    assert manifests(earlier.root) == manifests(other.root)
    for t in (2, 3):
        for name in WHOLE:
            assert (earlier.iteration(t).root / name).read_bytes() == (
                other.iteration(t).root / name
            ).read_bytes()
    # What the later version wrote, this one reads, and the other way round.
    check_state(Run.open(other))
    done = later("launch", "--state", earlier.root)
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stdout + done.stderr


def test_a_later_field_at_its_default_is_in_no_line_and_no_hash(tmp_path: Path) -> None:
    was = vote(1)
    now = LaterVote(*msgspec.structs.astuple(was))
    assert encode_row(now) == encode_row(was)
    assert rows_digest([now]) == rows_digest([was])
    (tmp_path / "a0-00000.jsonl").write_bytes(encode_row(was))
    assert list(ShardReader(tmp_path, LaterVote)) == [now]


@pytest.mark.parametrize("change", [{"mood": "hm"}, {"weights": {"a": 0.5}}, {"seconds_alone": 1.0}])
def test_a_later_field_with_another_value_is_written_and_hashed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    was = vote(1)
    now = msgspec.structs.replace(LaterVote(*msgspec.structs.astuple(was)), **change)
    assert encode_row(now) != encode_row(was)
    assert rows_digest([now]) != rows_digest([was])
    (tmp_path / "rows.jsonl").write_bytes(encode_row(now))
    assert list(read_rows(tmp_path / "rows.jsonl", LaterVote)) == [now]


def test_a_default_that_was_computed_is_left_out_too() -> None:
    """Not the object but the value decides: otherwise equal rows could give different bytes."""
    computed = LaterVote(*msgspec.structs.astuple(vote(1)), mood="".join([]), seconds_alone=float("0"))
    assert encode_row(computed) == encode_row(vote(1))


def test_fields_older_than_the_rule_are_written_with_any_value() -> None:
    line = msgspec.json.decode(encode_row(vote(1)))
    assert line["prompt_tokens"] == line["new_tokens"] == line["cut"] == line["seconds"] == 0


def test_no_field_but_the_oldest_is_written_at_its_default() -> None:
    """A field that comes later and is named here would change the hash of every row without it."""
    kept = {of.__name__: of.written_at_default for of in Record.__subclasses__() if of.written_at_default}
    oldest = ("prompt_tokens", "new_tokens", "cut")
    # Pairs lie in a whole file, whose bytes were committed as they are: no hash of a row knows them.
    assert kept == {"Vote": oldest, "Grade": oldest, "Answer": ("choice_logs",), "Pair": ("prompt",)}
