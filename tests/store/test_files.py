"""Whole files: old or new, never half."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_samples import Start, vote

from sparta.errors import SpartaError
from sparta.store import files
from sparta.store.records import Vote
from sparta.store.temporaries import is_temporary

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=40, deadline=None)
@given(value=json_values)
def test_json_comes_back_as_it_was_written(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.json"
    files.write_json(path, value)
    assert files.read_json(path, object) == value
    assert path.read_bytes().endswith(b"\n")


def test_equal_values_give_equal_bytes_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"x": 1, "y": {"b": 2, "a": 3}})
    files.write_json(tmp_path / "b", {"y": {"a": 3, "b": 2}, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(), max_size=8))
def test_rows_come_back_as_they_were_written(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.jsonl"
    rows = [vote(n, raw=text) for n, text in enumerate(texts)]
    files.write_rows(path, rows)
    assert list(files.read_rows(path, Vote)) == rows


def test_parents_are_created_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a" / "b" / "c", b"x")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c"]


def test_files_have_the_permissions_that_the_user_s_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "f", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def rows() -> object:
        yield vote(1)
        raise RuntimeError("the power of the plot fails")

    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        files.write_rows(path, rows())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{}\n", "line 1 is not a valid Vote"),
        (b"GOOD\n{\n", "line 2 is not a valid Vote"),
        (b"GOOD\n\n", "line 2 is not a valid Vote"),
        (b"GOOD\n\xff\n", "line 2 is not a valid Vote"),
        (b"GOOD\nGOOD", "ends within line 2"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.replace(b"GOOD", msgspec.json.encode(vote(1))))
    with pytest.raises(SpartaError, match=f"rows.jsonl,? {line}"):
        list(files.read_rows(path, Vote))


def test_a_row_with_an_unknown_field_or_a_score_off_the_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for change in ({"score": 11}, {"grade": 5}):
        files.write_rows(path, [msgspec.to_builtins(vote(1)) | change])
        with pytest.raises(SpartaError, match="line 1"):
            list(files.read_rows(path, Vote))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert list(files.read_rows(tmp_path / "f", Vote)) == []


def test_a_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="gone.json is missing"):
        files.read_json(tmp_path / "gone.json", dict[str, int])
    with pytest.raises(SpartaError, match="gone.jsonl is missing"):
        list(files.read_rows(tmp_path / "gone.jsonl", Vote))
    (tmp_path / "bad.json").write_text('{"a": "b"}')
    with pytest.raises(SpartaError, match="bad.json is not a valid dict"):
        files.read_json(tmp_path / "bad.json", dict[str, int])


def test_a_full_disk_is_explained_and_the_old_file_stays(small_disk: Path) -> None:
    path = small_disk / "f"
    files.write_bytes(path, b"old")
    with pytest.raises(SpartaError, match="f is full: free space and run the same command again"):
        files.write_bytes(path, bytes(1 << 20))
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]
    files.write_bytes(path, b"new")


def test_a_forbidden_place_is_explained(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SpartaError, match="Read-only file system"):
        files.write_bytes(small_disk / "f", b"")


def test_a_reader_never_sees_half_a_file_and_a_killed_writer_leaves_a_whole_one(
    tmp_path: Path, start: Start
) -> None:
    path = tmp_path / "f"
    files.write_bytes(path, b"\0" * 200_000)
    writer = start(
        """
        import sys
        from pathlib import Path
        from sparta.store.files import write_bytes
        n = 0
        while True:
            n += 1
            write_bytes(Path(sys.argv[1]), bytes([n % 256]) * 200_000)
        """,
        path,
    )
    seen = set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        data = path.read_bytes()
        assert data == data[:1] * 200_000
        seen.add(data[0])
    assert len(seen) > 3
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    data = path.read_bytes()
    assert data == data[:1] * 200_000
    assert all(is_temporary(left.name) for left in tmp_path.iterdir() if left != path)


def test_the_digest_of_a_folder_is_that_of_the_output_of_sha256sum(tmp_path: Path) -> None:
    for name in ("b/weights", "a", "b-c"):
        files.write_bytes(tmp_path / name, name.encode())
    printed = subprocess.run(
        ["sha256sum", "a", "b-c", "b/weights"], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert files.sha256_tree(tmp_path) == hashlib.sha256(printed).hexdigest()


def test_the_digest_of_a_folder_covers_names_and_contents_but_no_measurements(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "w", b"1")
    first = files.sha256_tree(tmp_path)
    files.write_bytes(tmp_path / "log.jsonl", b"seconds")
    files.write_bytes(tmp_path / ".w.0123.tmp", b"killed")
    assert files.sha256_tree(tmp_path) == first
    files.write_bytes(tmp_path / "w", b"2")
    second = files.sha256_tree(tmp_path)
    (tmp_path / "w").rename(tmp_path / "v")
    assert len({first, second, files.sha256_tree(tmp_path)}) == 3


def test_a_folder_that_is_missing_or_linked_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="gone is missing"):
        files.sha256_tree(tmp_path / "gone")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/usr")
    with pytest.raises(SpartaError, match="in/link is a link to a folder"):
        files.sha256_tree(tmp_path / "in")
