"""Rows appended by many jobs are one set, no matter how writers die or how the work was sharded."""

import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_samples import Start, vote

from sparta.errors import SpartaError
from sparta.store.files import encode_row
from sparta.store.records import Vote
from sparta.store.shards import (
    LineCounter,
    RowsEntry,
    ShardReader,
    ShardWriter,
    adopted_file,
    done_keys,
    iter_shards,
    read_shards,
    rows_digest,
    seconds_of_rows,
)


def put(folder: Path, *rows: Vote, attempt: int = 0, shard: int = 0) -> Path:
    with ShardWriter(folder, attempt, shard) as writer:
        for row in rows:
            writer.write(row)
    return writer.path


def digest(folder: Path) -> RowsEntry:
    return rows_digest(ShardReader(folder, Vote))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_set_and_its_digest_do_not_depend_on_the_shards(data: st.DataObject) -> None:
    drawn = data.draw(
        st.lists(st.tuples(st.integers(0, 99), st.text(max_size=5)), unique_by=lambda d: d[0], max_size=12)
    )
    rows = [vote(n, raw=raw) for n, raw in drawn]
    again = data.draw(st.lists(st.sampled_from(rows), max_size=6)) if rows else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "votes"
        for row in data.draw(st.permutations(rows + again)):
            timed = msgspec.structs.replace(row, seconds=data.draw(st.floats(0, 9)))
            put(folder, timed, attempt=data.draw(st.integers(0, 2)), shard=data.draw(st.integers(0, 3)))
        reader = ShardReader(folder, Vote)
        found = {row.key: msgspec.structs.replace(row, seconds=0.0) for row in reader}
        assert found == {row.key: row for row in rows}
        assert reader.entry == rows_digest(rows)
        assert reader.entry.count == len(done_keys(folder, Vote)) == len(rows)
        assert done_keys(folder, Vote) == set(found)
        assert LineCounter(folder).fresh() == len(rows) + len(again)


def test_a_shard_is_named_by_attempt_and_number(tmp_path: Path) -> None:
    assert put(tmp_path, attempt=2, shard=3).name == "a2-00003.jsonl"


def test_a_folder_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert read_shards(tmp_path / "none", Vote) == {}
    assert digest(tmp_path / "none").count == 0


def test_another_row_or_one_row_less_changes_the_digest_but_a_measurement_does_not() -> None:
    rows = [vote(1), vote(2)]
    same = rows_digest([vote(2, seconds=3.0), vote(1)])
    assert rows_digest(rows) == same
    assert rows_digest(rows[:1]) != same
    assert rows_digest([vote(1), vote(2, score=6.0)]) != same


def test_the_digest_is_known_only_after_the_last_row(tmp_path: Path) -> None:
    put(tmp_path, vote(1), vote(2))
    reader = ShardReader(tmp_path, Vote)
    rows = iter(reader)
    next(rows)
    with pytest.raises(ValueError, match="not been read to its end"):
        _ = reader.entry
    list(rows)
    assert reader.entry.count == 2


def test_a_torn_last_line_is_a_missing_key(tmp_path: Path) -> None:
    path = put(tmp_path, vote(1), vote(2))
    whole = path.read_bytes()
    for cut in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read_shards(tmp_path, Vote)) == [vote(1).key]


def test_a_writer_truncates_a_torn_row_before_it_continues(tmp_path: Path) -> None:
    path = put(tmp_path, vote(1), vote(2))
    whole = path.read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) // 2 + 7, len(whole) - 1):
        path.write_bytes(whole[:cut])
        put(tmp_path, vote(3))
        assert vote(3).key in read_shards(tmp_path, Vote)
        assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, cut) + 1] + encode_row(vote(3))


def test_a_torn_row_longer_than_a_block_is_cut_away(tmp_path: Path) -> None:
    path = put(tmp_path, vote(1))
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    put(tmp_path, vote(2))
    assert len(read_shards(tmp_path, Vote)) == 2


def test_a_malformed_line_in_the_middle_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = put(tmp_path, vote(1))
    with path.open("ab") as file:
        file.write(b'{"combat_id": "c\n')
    put(tmp_path, vote(2))
    for read in (read_shards, done_keys, lambda *a: list(iter_shards(*a))):
        with pytest.raises(
            SpartaError, match=r"a0-00000.jsonl, line 2 is not a valid Vote .*: delete that line"
        ):
            read(tmp_path, Vote)


def test_two_results_of_one_key_that_disagree_are_both_named(tmp_path: Path) -> None:
    put(tmp_path, vote(1), vote(2, score=3.0), shard=1)
    put(tmp_path, vote(2, score=4.0), attempt=1)
    with pytest.raises(
        SpartaError, match=r"a0-00001.jsonl, line 2 and .*a1-00000.jsonl, line 1 are different .* c0002/m0/m2"
    ):
        read_shards(tmp_path, Vote)
    with pytest.raises(ValueError, match="c0002/m0/m2"):
        rows_digest([vote(2, score=3.0), vote(2, score=4.0)])


def test_files_that_are_no_shards_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, vote(1))
    for name in ("a0-00001.jsonl.bak", ".a0-00002.jsonl.0.tmp", "notes.jsonl"):
        (tmp_path / name).write_text("no row\n")
    assert len(read_shards(tmp_path, Vote)) == 1


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 0, 0, flush_seconds=1e9) as writer:
        writer.write(vote(1))
        assert len(done_keys(tmp_path, Vote)) == 1


def test_a_closed_writer_writes_no_more(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 0, 0)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(vote(1))


def test_a_device_that_is_always_full_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a0-00000.jsonl").symlink_to("/dev/full")
    with ShardWriter(tmp_path, 0, 0) as writer, pytest.raises(SpartaError, match="is full: free space"):
        writer.write(vote(1))


def test_a_disk_that_fills_up_leaves_whole_rows_and_the_work_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(16384))
    writer = ShardWriter(small_disk / "v", 0, 0)
    with pytest.raises(SpartaError, match="is full: free space and run the same command again"):
        for n in range(10_000):
            writer.write(vote(n, raw="x" * 700))
    assert writer.path.read_bytes().endswith(b"}\n")
    kept = done_keys(small_disk / "v", Vote)
    assert kept == {vote(k).key for k in range(n)}
    ballast.unlink()
    put(small_disk / "v", vote(n))
    assert len(read_shards(small_disk / "v", Vote)) == n + 1


def test_killing_writers_repeatedly_loses_no_row_that_was_written(tmp_path: Path, start: Start) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from sparta.store.records import Vote
        from sparta.store.shards import ShardWriter
        n = int(sys.argv[2])
        with ShardWriter(Path(sys.argv[1]), 0, 0) as writer:
            while True:
                writer.write(Vote(f"c{n:07d}", "m0", "m2", 7.0, "x" * (n % 5000), 1))
                print(n, flush=True)
                n += 1
        """
    told = set()
    for round_ in range(6):
        writer = start(code, tmp_path / "v", round_ * 1_000_000)
        assert writer.stdout is not None
        told.add(int(writer.stdout.readline()))
        time.sleep(0.03 * round_)
        writer.kill()
        lines = writer.stdout.read().splitlines(keepends=True)
        told |= {int(line) for line in lines if line.endswith("\n")}
        found = {int(row.combat_id[1:]) for row in iter_shards(tmp_path / "v", Vote)}
        assert told <= found
    assert len(told) > 6


def test_a_folder_can_be_read_while_others_append_to_it(tmp_path: Path, start: Start) -> None:
    code = """
        import sys
        from pathlib import Path
        from sparta.store.records import Vote
        from sparta.store.shards import ShardWriter
        with ShardWriter(Path(sys.argv[1]), 0, int(sys.argv[2])) as writer:
            for n in range(3000):
                writer.write(Vote(f"c{n:07d}", "m0", "m" + sys.argv[2], 7.0, "x" * (n % 3000), 1))
        """
    writers = [start(code, tmp_path / "v", shard) for shard in range(2)]
    counts = [0]
    while any(writer.poll() is None for writer in writers):
        counts.append(len(read_shards(tmp_path / "v", Vote)))
    assert counts == sorted(counts)
    assert len(read_shards(tmp_path / "v", Vote)) == 6000


def test_measured_seconds_are_those_of_the_attempts_named_and_of_no_other_run(tmp_path: Path) -> None:
    for attempt, seconds in ((0, 1.0), (1, 2.0), (12, 4.0)):
        with ShardWriter(tmp_path, attempt, 3) as shard:
            shard.write(vote(attempt, seconds=seconds))
    adopted_file(tmp_path).write_bytes(encode_row(vote(5, seconds=8.0)))
    assert seconds_of_rows(tmp_path, {1, 12}) == 6.0


def test_a_line_counter_reads_on_where_it_was(tmp_path: Path) -> None:
    counter = LineCounter(tmp_path)
    assert counter.fresh() == 0
    (tmp_path / "a0-00000.jsonl").write_bytes(b"1\n2\n3")
    assert counter.fresh() == 2
    with (tmp_path / "a0-00000.jsonl").open("ab") as file:
        file.write(b"3\n4\n")
    (tmp_path / "a1-00000.jsonl").write_bytes(b"5\n")
    assert counter.fresh() == 3
    assert counter.fresh() == 0


def test_a_task_started_again_writes_beside_its_earlier_start_and_both_count(tmp_path: Path) -> None:
    """That one may still be at work on a node that was cut off."""
    with ShardWriter(tmp_path, 0, 3) as before, ShardWriter(tmp_path, 0, 3, start=1) as again:
        before.write(vote(1))
        again.write(vote(2))
        before.write(vote(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a0-00003-1.jsonl", "a0-00003.jsonl"]
    assert len(done_keys(tmp_path, Vote)) == 3
